"""Meta-SGD: the inner loop's learning rates are learned too, one for each parameter."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.metalearn.maml import fast_weights
from metarep_jax.metalearn.network import Output, network
from metarep_jax.types import MetaLearner, NormMode


def meta_sgd(
    encoder: nn.Module,
    *,
    way: int,
    inner_lr: float | tuple[float, float] = (0.005, 0.1),
    inner_steps: int = 1,
    test_steps: int = 1,
    order: Literal[1, 2] = 2,
    remat: bool = False,
    mixed: bool = False,
    test_norm: NormMode = "transductive",
    output: Output = "logits",
) -> MetaLearner:
    """θ' = θ − α ∘ ∇L(θ): learns θ and α, a vector as long as θ, so that one step on the support set suits the queries.

    α holds a learning rate and, as its entries differ and may turn negative, also a direction that need not be the
    gradient's. As with any learned rate the outer optimiser moves it: with Adam at 1e-3 by about 1e-3 a step.

    Args:
      encoder: a module of ``metarep_jax.encoders``, made with ``adapted=True``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      inner_lr: α at the start, the same for all parameters: a number, or a range from which ``init`` draws one, as in
        the paper. It multiplies the gradient of the mean support loss (``maml`` tells of the trap in that).
      inner_steps, test_steps: inner steps in training and at test; the paper takes one.
      order: 1 drops second derivatives (first-order MAML), 2 differentiates through the inner gradients.
      remat: recompute inner steps in the backward pass, in nested groups, to save memory (``inner.inner_loop``).
      mixed: differentiate through inner gradients forward over reverse, to save memory (``inner.inner_loop``).
      test_norm: whose statistics batch norm uses for the queries at test; training uses those of the query batch.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head", "rule"}``, where rule["learning_rate"] is α, a tree of the
      weights' shapes. ``task`` is the fast weights and the support set.

    Raises:
      ValueError: for a rate or a range that is not positive and ascending, a negative number of steps, or an order
        other than 1 and 2.

    References:
      Li et al. 2017, https://arxiv.org/abs/1707.09835, algorithm 1.
    """
    low, high = inner_lr if isinstance(inner_lr, tuple) else (inner_lr, inner_lr)
    if not 0 < low <= high:
        raise ValueError(f"Meta-SGD starts from a positive inner_lr, or an ascending range of these, got {inner_lr}")

    def first_rule(key: Array, weights: Any) -> dict:
        alpha = jax.random.uniform(key, minval=low, maxval=high)
        return {"learning_rate": jax.tree.map(lambda leaf: jnp.full_like(leaf, alpha), weights)}

    return fast_weights(
        network(encoder, way, output, what="Meta-SGD"), lambda rule: {"learning_rate": rule["learning_rate"]},
        inner_steps=inner_steps, test_steps=test_steps, order=order, remat=remat, mixed=mixed, test_norm=test_norm,
        first_rule=first_rule,
    )  # fmt: skip
