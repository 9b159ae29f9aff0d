"""R2-D2: ridge regression on the encoder's features, solved in closed form within each task."""

import math

import jax.numpy as jnp
import jax.scipy.linalg
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.metalearn.linear_head import linear_head
from metarep_jax.metalearn.network import Output
from metarep_jax.metalearn.settings import check_one_of, check_positive
from metarep_jax.types import MetaLearner, NormMode


def ridge(
    encoder: nn.Module,
    *,
    way: int,
    l2: float = 1.0,
    scale: float | None = None,
    test_norm: NormMode = "running",
    output: Output = "logits",
) -> MetaLearner:
    """Learns features on which ridge regression of the one-hot labels (or of targets) is a good predictor.

    Outputs are α · X′W + β with W = argmin ‖XW − Y‖² + λ‖W‖²; λ, α and β are learned with the encoder. Under
    cross-entropy β, one number for all classes, moves nothing; in regression it is the intercept.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      l2: λ at the start; its logarithm is learned.
      scale: α at the start; None: 1 in regression and 10 in classification, where 0-or-1 targets are no logits yet.
      test_norm: whose statistics batch norm uses for the queries at test.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "rule": {"log_l2", "scale", "bias"}}``.

    References:
      Bertinetto et al. 2019, https://arxiv.org/abs/1805.08136, section 3.2 (R2-D2).

    Raises:
      ValueError: for an ``l2`` or a ``scale`` that is not positive.
    """
    check_positive("ridge regression (R2-D2)", l2=l2, scale=scale)
    check_one_of(Output, "ridge regression (R2-D2)", output=output)
    if scale is None:
        scale = {"logits": 10.0, "mean": 1.0}[output]
    return linear_head(
        encoder,
        way=way,
        fit=lambda rule, rows, targets: fit_ridge(rows, targets, jnp.exp(rule["log_l2"])),
        rule={"log_l2": math.log(l2), "scale": scale, "bias": 0.0},
        what="ridge regression (R2-D2)",
        output=output,
        test_norm=test_norm,
    )


def fit_ridge(
    rows: Float[Array, "n dim"], targets: Float[Array, "n way"], l2: float | Float[Array, ""]
) -> Float[Array, "dim way"]:
    """W = argmin ‖XW − Y‖² + λ‖W‖² = (XᵀX + λI)⁻¹ XᵀY, for λ > 0.

    With fewer rows than dimensions by the Woodbury identity, as Xᵀ(XXᵀ + λI)⁻¹Y: a system of n equations, not dim.
    """
    n, dim = rows.shape
    if n < dim:
        return rows.T @ _solve(rows @ rows.T, targets, l2)
    return _solve(rows.T @ rows, rows.T @ targets, l2)


def _solve(gram: Array, right: Array, l2: float | Array) -> Array:
    return jax.scipy.linalg.solve(gram + l2 * jnp.eye(len(gram), dtype=gram.dtype), right, assume_a="pos")
