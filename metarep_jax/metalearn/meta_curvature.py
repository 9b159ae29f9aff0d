"""Meta-Curvature: the inner gradient is multiplied by learned matrices, one along each mode of each parameter."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.metalearn.maml import fast_weights
from metarep_jax.metalearn.network import Output, network
from metarep_jax.metalearn.settings import check_positive
from metarep_jax.types import MetaLearner, NormMode

# The product of a gradient [filter, in, out] with a matrix along one of its modes.
MODE_PRODUCT = {"filter": "fio,gf->gio", "in": "fio,ji->fjo", "out": "fio,po->fip"}


def meta_curvature(
    encoder: nn.Module,
    *,
    way: int,
    inner_lr: float = 0.4,
    inner_steps: int = 1,
    test_steps: int = 1,
    order: Literal[1, 2] = 2,
    remat: bool = False,
    mixed: bool = False,
    test_norm: NormMode = "transductive",
    output: Output = "logits",
) -> MetaLearner:
    """θ' = θ − α MC(∇L(θ)): learns θ and the curvature MC, which mixes the entries of each parameter's gradient.

    A gradient G of a convolution [filter, in, out] becomes G ×_filter M_f ×_in M_i ×_out M_o, a dense layer's
    [in, out] has M_i and M_o, a vector's [out] M_o alone. As a matrix on the flattened gradient this is the Kronecker
    product M_f ⊗ M_i ⊗ M_o, of which only the factors are kept. They start at the identity, where this is MAML.

    Args:
      encoder: a module of ``metarep_jax.encoders``, made with ``adapted=True``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      inner_lr: α, on the mean support loss (``maml`` tells of the trap in that).
      inner_steps, test_steps: inner steps in training and at test. A curvature is learned for as many
        steps as training takes, so that a test with more is another rule.
      order: 1 drops second derivatives (first-order MAML), 2 differentiates through the inner gradients.
      remat: recompute inner steps in the backward pass, in nested groups, to save memory (``inner.inner_loop``).
      mixed: differentiate through inner gradients forward over reverse, to save memory (``inner.inner_loop``).
      test_norm: whose statistics batch norm uses for the queries at test; training uses those of the query batch.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head", "rule"}``, where rule["curvature"] has, in place of each
      weight, its matrices by mode. ``task`` is the fast weights and the support set.

    Raises:
      ValueError: for a rate that is not positive, a negative number of steps, or an order other than 1 and 2.

    References:
      Park & Oliva 2019, https://arxiv.org/abs/1902.03356, section 3.2.
    """
    check_positive("Meta-Curvature", inner_lr=inner_lr)

    def update(rule: Any) -> dict:
        def transform(gradient: Any, step: Any) -> Any:
            del step
            return jax.tree.map(multiply_modes, gradient, rule["curvature"])

        return {"learning_rate": inner_lr, "transform": transform}

    def first_rule(key: Array, weights: Any) -> dict:
        del key
        return {"curvature": jax.tree.map(identities, weights)}

    return fast_weights(
        network(encoder, way, output, what="Meta-Curvature"), update, inner_steps=inner_steps, test_steps=test_steps,
        order=order, remat=remat, mixed=mixed, test_norm=test_norm, first_rule=first_rule,
    )  # fmt: skip


def identities(weight: Float[Array, "..."]) -> dict[str, Float[Array, "_ _"]]:
    """The identity matrix of each mode of ``weight``, whose last axis is out, the one before it in, the rest filter."""
    count = min(max(weight.ndim, 1), 3)
    sizes = list(zip(MODE_PRODUCT, _three_modes(weight.shape), strict=True))[-count:]
    return {mode: jnp.eye(size, dtype=weight.dtype) for mode, size in sizes}


def multiply_modes(
    gradient: Float[Array, "*shape"], matrices: dict[str, Float[Array, "_ _"]]
) -> Float[Array, "*shape"]:
    """The product of ``gradient`` with each mode's matrix along that mode; the order of modes does not matter."""
    product = gradient.reshape(_three_modes(gradient.shape))
    for mode, matrix in matrices.items():
        product = jnp.einsum(MODE_PRODUCT[mode], product, matrix)
    return product.reshape(gradient.shape)


def _three_modes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """``shape`` as (filter, in, out): the positions of a kernel are one mode, a mode that is not there has size 1."""
    *filters, inputs, outputs = (1, 1, *shape)
    return math.prod(filters), inputs, outputs
