"""Terms on named layers: a student's layer, through a learned linear map, against the teacher's."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders.features import at_least_float32, unit_rows
from metarep_jax.losses import masked_mean
from metarep_jax.types import Keys, Outputs, Term


def hint(layer: str = "features", teacher_layer: str | None = None, *, axis_name: str | None = None) -> Term:
    """½ ‖student · P + b − teacher‖² of one named layer, with a learned projection P, divided by the number of entries.

    Half the mean square: the paper's eq. 3 has the factor ½ too, where many other codes have none. P maps the last axis
    alone, so that encoders of different widths compare; all other axes, such as a feature map's, must be equal.

    Args:
      layer: of the student: "features", "logits", or a layer of its encoder, such as "block2".
      teacher_layer: of the teacher; None: of the same name.
      axis_name: the mapped axis over which the batch is sharded, or None.

    References:
      Romero et al. 2015, FitNets, https://arxiv.org/abs/1412.6550, section 2.2.
    """
    theirs = teacher_layer or layer

    def init(key: Array, student: Outputs, teacher: Outputs, batch: dict, size: int) -> tuple[dict[str, Array], dict]:
        del batch, size
        ours, wanted = check_layers("hint", student, layer, teacher, theirs)
        wide, out = ours.shape[-1], wanted.shape[-1]
        return {"kernel": jax.random.normal(key, (wide, out)) * wide**-0.5, "bias": jnp.zeros(out)}, {}

    def apply(
        params: Any, state: Any, student: Outputs, teacher: Outputs, batch: dict, keys: Keys
    ) -> tuple[Float[Array, ""], Any]:
        del keys
        wanted = jax.lax.stop_gradient(teacher[theirs])
        projected = student[layer] @ params["kernel"] + params["bias"]
        distance = 0.5 * jnp.mean((projected - wanted) ** 2, axis=tuple(range(1, wanted.ndim)))
        return masked_mean(distance, batch.get("mask"), axis_name), state

    return Term(init, apply, layers=(layer,), teacher_layers=(theirs,))


def feature_regression(
    layer: str = "features", teacher_layer: str | None = None, *, axis_name: str | None = None
) -> Term:
    """The squared distance of directions, 2 − 2 cos(student · P + b, teacher), between 0 and 4; P is linear, learned.

    The teacher's scale does not matter, so that its features may be averages, or whitened.

    Args:
      layer: of the student: "features", "logits", or a layer of its encoder, such as "block2".
      teacher_layer: of the teacher; None: of the same name.
      axis_name: the mapped axis over which the batch is sharded, or None.

    References:
      Grill et al. 2020, https://arxiv.org/abs/2006.07733, eq. 2.
    """
    theirs = teacher_layer or layer

    def init(key: Array, student: Outputs, teacher: Outputs, batch: dict, size: int) -> tuple[Any, dict]:
        del batch, size
        ours, wanted = check_layers("feature_regression", student, layer, teacher, theirs)
        return nn.Dense(wanted.shape[-1]).init(key, ours)["params"], {}

    def apply(
        params: Any, state: Any, student: Outputs, teacher: Outputs, batch: dict, keys: Keys
    ) -> tuple[Float[Array, ""], Any]:
        del keys
        wanted = jax.lax.stop_gradient(teacher[theirs])
        ours = student[layer]
        predicted: Any = nn.Dense(wanted.shape[-1], dtype=ours.dtype).apply({"params": params}, ours)
        cosine = jnp.sum(unit_rows(at_least_float32(predicted)) * unit_rows(at_least_float32(wanted)), axis=-1)
        cosine = cosine.mean(tuple(range(1, cosine.ndim)))
        return 2 - 2 * masked_mean(cosine, batch.get("mask"), axis_name), state

    return Term(init, apply, layers=(layer,), teacher_layers=(theirs,))


def check_layers(term: str, student: Outputs, layer: str, teacher: Outputs, theirs: str) -> tuple[Array, Array]:
    """The two layers that ``term`` compares.

    Raises:
      ValueError: where one of them is missing, or they differ in more than their last axis.
    """
    for who, outputs, name in (("student", student, layer), ("teacher", teacher, theirs)):
        if name not in outputs:
            raise ValueError(f"{term}: the {who} has no layer {name!r}; it has: {', '.join(sorted(outputs))}")
    ours, wanted = student[layer], teacher[theirs]
    if ours.shape[:-1] != wanted.shape[:-1]:
        raise ValueError(
            f"{term}: layers may differ in their last axis alone; the student's {layer!r} is {list(ours.shape[1:])} an "
            f"example, the teacher's {theirs!r} {list(wanted.shape[1:])}"
        )
    return ours, wanted
