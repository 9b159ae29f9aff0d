"""Terms on predictions, the labels' and the teacher's, and the weighted sum of terms."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarep_jax import losses
from metarep_jax.types import Keys, Outputs, Term


def distillation_loss(terms: dict[Term, float]) -> Term:
    """The weighted sum of ``terms``, itself a ``Term``: ``distillation_loss({cross_entropy(): 1.0, hint(): 0.1})``.

    Raises:
      ValueError: without terms, or for a negative weight.
    """
    if not terms:
        raise ValueError("distillation_loss needs at least one term, such as {cross_entropy(): 1.0}")
    for weight in terms.values():
        if weight < 0:
            raise ValueError(f"distillation_loss: weights must not be negative, got {weight}")

    def init(
        key: Array, student: Outputs, teacher: Outputs, batch: dict, size: int
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        keys = jax.random.split(key, len(terms))
        starts = [term.init(own, student, teacher, batch, size) for term, own in zip(terms, keys, strict=True)]
        return tuple(params for params, _ in starts), tuple(state for _, state in starts)

    def apply(
        params: Any, state: Any, student: Outputs, teacher: Outputs, batch: dict, keys: Keys
    ) -> tuple[Float[Array, ""], tuple[Any, ...]]:
        total, moved = jnp.zeros(()), []
        for (term, weight), own, before in zip(terms.items(), params, state, strict=True):
            value, after = term.apply(own, before, student, teacher, batch, keys)
            total, moved = total + weight * value, [*moved, after]
        return total, tuple(moved)

    def joined(names: list[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in names for name in each))

    return Term(
        init,
        apply,
        layers=joined([term.layers for term in terms]),
        teacher_layers=joined([term.asks_of_teacher for term in terms]),
        needs=joined([term.needs for term in terms]),
    )


def cross_entropy(*, axis_name: str | None = None) -> Term:
    """The student against the labels, class numbers or distributions; the teacher is not asked.

    Args:
      axis_name: the mapped axis over which the batch is sharded, or None.
    """

    def apply(
        params: Any, state: Any, student: Outputs, teacher: Outputs, batch: dict, keys: Keys
    ) -> tuple[Float[Array, ""], Any]:
        del params, teacher, keys
        return losses.cross_entropy(student["logits"], batch["label"], batch.get("mask"), axis_name), state

    return Term(nothing_to_learn, apply, teacher_layers=(), needs=("label",))


def soft_targets(temperature: float = 4.0, *, axis_name: str | None = None) -> Term:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over rows.

    T² keeps the gradient's size when T changes (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2).

    Args:
      temperature: T; the higher it is, the more the ratios of small probabilities count.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Raises:
      ValueError: for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"soft_targets: temperature must be positive, got {temperature}")

    def apply(
        params: Any, state: Any, student: Outputs, teacher: Outputs, batch: dict, keys: Keys
    ) -> tuple[Float[Array, ""], Any]:
        del params, keys
        wanted = jax.lax.stop_gradient(teacher["logits"])
        divergence = losses.kl_divergence(student["logits"], wanted, temperature, batch.get("mask"), axis_name)
        return temperature**2 * divergence, state

    return Term(nothing_to_learn, apply)


def nothing_to_learn(key: Any, student: Outputs, teacher: Outputs, batch: dict, size: int) -> tuple[dict, dict]:
    """``Term.init`` of a term without parameters and state."""
    del key, student, teacher, batch, size
    return {}, {}
