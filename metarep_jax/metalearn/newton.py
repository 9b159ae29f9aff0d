"""LR-D2: logistic regression on the encoder's features, a few Newton steps within each task."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from metarep_jax.metalearn.linear_head import linear_head
from metarep_jax.metalearn.ridge import fit_ridge
from metarep_jax.metalearn.settings import check_positive
from metarep_jax.types import MetaLearner, NormMode

FLATTEST = 1e-6  # least weight p(1 − p) of a row: below it, float32 has lost the row's residual


def newton_logistic(
    encoder: nn.Module, *, way: int, l2: float = 1.0, iterations: int = 5, test_norm: NormMode = "running"
) -> MetaLearner:
    """Learns features on which logistic regression, one class against the rest as in the paper, is a good classifier.

    The logits are α · X′W + β, where each column of W is its class's log-odds; λ, α and β are learned. β, one number
    for all classes, moves nothing under cross-entropy.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: classes of an episode.
      l2: λ at the start, the strength of the penalty; its logarithm is learned.
      iterations: Newton steps from W = 0.
      test_norm: whose statistics batch norm uses for the queries at test.

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "rule": {"log_l2", "scale", "bias"}}``.

    Raises:
      ValueError: for an ``l2`` that is not positive, or ``iterations`` below 1; by ``init`` for regression.

    References:
      Bertinetto et al. 2019, https://arxiv.org/abs/1805.08136, section 3.3 (LR-D2).
    """
    check_positive("logistic regression (LR-D2)", l2=l2)
    if iterations < 1:
        raise ValueError(f"logistic regression takes at least 1 Newton step, got iterations={iterations}")
    return linear_head(
        encoder,
        way=way,
        fit=lambda rule, rows, targets: fit_newton(rows, targets, jnp.exp(rule["log_l2"]), iterations),
        rule={"log_l2": math.log(l2), "scale": 1.0, "bias": 0.0},
        what="logistic regression (LR-D2)",
        test_norm=test_norm,
    )


def fit_newton(
    rows: Float[Array, "n dim"], targets: Float[Array, "n way"], l2: float | Float[Array, ""], iterations: int
) -> Float[Array, "dim way"]:
    """Minimises, for each column of 0-or-1 targets, Σ log-loss of σ(Xw) + λ/2 ‖w‖² by Newton's method from w = 0.

    A step is ridge regression (iteratively reweighted least squares) of z = Xw + (y − p)/s on X with row weights
    s = p(1 − p): plain ridge of √s z on √s X, whose system has as many unknowns as there are rows or dimensions,
    whichever are fewer. Not damped: it converges where λ is not far too small for the features.

    Args:
      rows: X [n, dim], without a column of ones. A row of zeros says nothing.
      targets: y [n, way], each 0 or 1.
      l2: λ > 0.
      iterations: Newton steps.
    """

    def one_class(target: Array) -> Array:
        def newton_step(weights: Array, _: None) -> tuple[Array, None]:
            odds = rows @ weights
            p = jax.nn.sigmoid(odds)
            slope = jnp.maximum(p * (1 - p), FLATTEST)
            root = jnp.sqrt(slope)
            aim = root * odds + (target - p) / root
            return fit_ridge(root[:, None] * rows, aim[:, None], l2)[:, 0], None

        return lax.scan(newton_step, jnp.zeros_like(rows[0]), None, length=iterations)[0]

    return jax.vmap(one_class, in_axes=1, out_axes=1)(targets)
