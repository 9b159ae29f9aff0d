"""Barlow Twins: the cross-correlation of two views' embeddings should be the identity matrix."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_positive, with_least_batch
from metarep_jax.pretrain.devices import mean_over
from metarep_jax.pretrain.heads import Head, standardise
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.views import Augment, make_views
from metarep_jax.types import Keys, Objective


def barlow(
    encoder: nn.Module,
    *,
    augment: Augment,
    off_diagonal: float = 5e-3,
    hidden: int = 1024,
    out: int = 1024,
    axis_name: str | None = None,
) -> Objective:
    """Redundancy reduction: each embedding dimension agrees between views and is decorrelated from all others.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      off_diagonal: λ, the weight of the redundancy term; positive.
      hidden, out: widths of the projector, three layers; the paper has 8192 and gains up to there (figure 4).
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` with metrics ``correlation`` (the mean over dimensions between views; 1 is best),
      ``embedding_std`` and ``effective_rank``.

    Raises:
      ValueError: for a weight or a width that is not positive, and by ``init`` for a batch of one.

    References:
      Zbontar et al. 2021, Barlow Twins, https://arxiv.org/abs/2103.03230, eq. 1 and 2, algorithm 1. In this file both
      views pass the encoder as one batch; the correlation standardises each by itself, as in the paper.
    """
    check_positive("barlow", off_diagonal=off_diagonal, hidden=hidden, out=out)
    net = chain(encoder=encoder, projector=Head((hidden, hidden, out), axis_name=axis_name))

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        outputs, state = apply_to_views(net, params, state, make_views(augment, batch, keys))
        first, second = outputs["projector"]
        matrix = cross_correlation(first, second, axis_name)
        metrics = {"correlation": jnp.diagonal(matrix).mean(), **embedding_health(outputs["encoder"], axis_name)}
        return redundancy(matrix, off_diagonal), (state, metrics)

    init = with_least_batch("barlow", net.init, "since it correlates dimensions over them")
    return Objective(init, loss, encoder_features(encoder), needs=("views",))


def cross_correlation(
    first: Float[Array, "n dim"], second: Float[Array, "n dim"], axis_name: str | None = None
) -> Float[Array, "dim dim"]:
    """The correlations of all dimensions of one view with all of the other, over the global batch (eq. 2)."""
    product = standardise(first, axis_name).T @ standardise(second, axis_name)
    return mean_over(product / first.shape[0], axis_name)


def redundancy(matrix: Float[Array, "dim dim"], off_diagonal: float) -> Float[Array, ""]:
    """Σ (1 − C_ii)² + λ Σ_{i≠j} C_ij² (eq. 1); 0 is the least, at the identity."""
    diagonal = jnp.diagonal(matrix)
    return jnp.sum((1 - diagonal) ** 2) + off_diagonal * (jnp.sum(matrix**2) - jnp.sum(diagonal**2))
