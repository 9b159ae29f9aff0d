"""The summands of a distillation loss, and their weighted sum.

Outputs are dicts: ``logits`` [n, classes], ``features`` [n, dim], and other named layers a model returns.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metarep_jax.types import Examples, Outputs, Term


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

    def init(key: Array, student: Outputs, teacher: Outputs) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(terms))
        return tuple(term.init(each, student, teacher) for term, each in zip(terms, keys, strict=True))

    def apply(params: Any, student: Outputs, teacher: Outputs, batch: Examples) -> Float[Array, ""]:
        values = [term.apply(own, student, teacher, batch) for term, own in zip(terms, params, strict=True)]
        return sum((weight * value for weight, value in zip(terms.values(), values, strict=True)), jnp.zeros(()))

    return Term(init, apply)


def cross_entropy() -> Term:
    """The student against the labels; the teacher is not asked."""

    def apply(params: Any, student: Outputs, teacher: Outputs, batch: Examples) -> Float[Array, ""]:
        del params, teacher
        losses = optax.softmax_cross_entropy_with_integer_labels(student["logits"], batch.label)
        return _mean(losses, batch)

    return Term(_nothing, apply)


def soft_targets(temperature: float = 4.0) -> Term:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over rows.

    T² keeps the gradient's size when T changes (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2).

    Raises:
      ValueError: for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"soft_targets: temperature must be positive, got {temperature}")

    def apply(params: Any, student: Outputs, teacher: Outputs, batch: Examples) -> Float[Array, ""]:
        del params
        wanted = jax.nn.log_softmax(jax.lax.stop_gradient(teacher["logits"]) / temperature)
        given = jax.nn.log_softmax(student["logits"] / temperature)
        return temperature**2 * _mean(jnp.sum(jnp.exp(wanted) * (wanted - given), axis=-1), batch)

    return Term(_nothing, apply)


def hint(layer: str = "features") -> Term:
    """½ ‖student · P + b − teacher‖² of one named layer, with a learned projection P, divided by the teacher's width.

    Encoders of different widths thereby compare (Romero et al. 2015, FitNets, https://arxiv.org/abs/1412.6550, eq. 3).
    """

    def init(key: Array, student: Outputs, teacher: Outputs) -> dict[str, Array]:
        for who, outputs in (("student", student), ("teacher", teacher)):
            if layer not in outputs:
                raise ValueError(f"hint: the {who} has no layer {layer!r}; it has: {', '.join(sorted(outputs))}")
        wide, out = student[layer].shape[-1], teacher[layer].shape[-1]
        return {"kernel": jax.random.normal(key, (wide, out)) * wide**-0.5, "bias": jnp.zeros(out)}

    def apply(params: Any, student: Outputs, teacher: Outputs, batch: Examples) -> Float[Array, ""]:
        wanted = jax.lax.stop_gradient(teacher[layer])
        projected = student[layer] @ params["kernel"] + params["bias"]
        return _mean(0.5 * jnp.mean((projected - wanted) ** 2, axis=-1), batch)

    return Term(init, apply)


def _nothing(key: Array, student: Outputs, teacher: Outputs) -> dict:
    del key, student, teacher
    return {}


def _mean(rows: Float[Array, " n"], batch: Examples) -> Float[Array, ""]:
    if batch.mask is None:
        return rows.mean()
    return jnp.sum(rows * batch.mask) / jnp.maximum(batch.mask.sum(), 1)
