"""Sinkhorn–Knopp: soft assignments of rows to columns in which every column gets the same share."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sinkhorn(scores: Float[Array, "n k"], *, epsilon: float = 0.05, iterations: int = 3) -> Float[Array, "n k"]:
    """The assignment that maximises its agreement with ``scores`` plus ``epsilon`` times its entropy, nearly.

    Rows sum to 1 exactly; columns sum to n/k, the more exactly the more ``iterations``. Scaling is done on logarithms,
    so that no score is too large. No gradient.

    Args:
      scores: similarities of n examples to k prototypes; of the global batch.
      epsilon: positive; small makes assignments sharp.
      iterations: of scaling the columns and then the rows; at least 1.

    References:
      Cuturi 2013, https://arxiv.org/abs/1306.0895; Caron et al. 2020 (SwAV), eq. 3 to 5,
      https://arxiv.org/abs/2006.09882.
    """
    if epsilon <= 0 or iterations < 1:
        raise ValueError(f"sinkhorn: epsilon must be positive and iterations at least 1, got {epsilon}, {iterations}")
    share = math.log(scores.shape[0] / scores.shape[1])
    logits = jax.lax.stop_gradient(scores) / epsilon
    for _ in range(iterations):
        logits = jax.nn.log_softmax(logits, axis=0) + share
        logits = jax.nn.log_softmax(logits, axis=1)
    return jnp.exp(logits)
