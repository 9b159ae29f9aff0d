"""SimSiam: each view predicts the other's embedding, which gets no gradient. Neither negatives nor a teacher."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_positive, with_least_batch
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.views import Augment, make_views
from metarep_jax.types import Keys, Objective


def simsiam(
    encoder: nn.Module,
    *,
    augment: Augment,
    hidden: int = 256,
    out: int = 256,
    bottleneck: int = 64,
    axis_name: str | None = None,
) -> Objective:
    """Minimises the negative cosine between a prediction from one view and the other view's projection.

    What prevents collapse is the gradient that stops at the projection, with the predictor before it.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      hidden, out: widths of the projector, three layers; the paper has 2048 for features of 2048.
      bottleneck: of the predictor, two layers; the paper has a quarter of ``out``.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` whose loss lies between −1 and 1, with metrics ``embedding_std`` and ``effective_rank``.

    Raises:
      ValueError: for a width that is not positive, and by ``init`` for a batch of one.

    References:
      Chen & He 2020, Exploring Simple Siamese Representation Learning, https://arxiv.org/abs/2011.10566, algorithm 1,
      eq. 1 and 4. In this file both views are normalised as one batch.
    """
    check_positive("simsiam", hidden=hidden, out=out, bottleneck=bottleneck)
    net = chain(
        encoder=encoder,
        projector=Head((hidden, hidden, out), last_norm=True, axis_name=axis_name),
        predictor=Head((bottleneck, out), axis_name=axis_name),
    )

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        outputs, state = apply_to_views(net, params, state, make_views(augment, batch, keys))
        (z1, z2), (p1, p2) = outputs["projector"], outputs["predictor"]
        value = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        return value, (state, embedding_health(outputs["encoder"], axis_name))

    init = with_least_batch("simsiam", net.init, "since its heads normalise over them")
    return Objective(init, loss, encoder_features(encoder), needs=("views",))


def negative_cosine(prediction: Float[Array, "n dim"], target: Float[Array, "n dim"]) -> Float[Array, ""]:
    """Minus the mean cosine between rows (eq. 1); no gradient reaches the target."""
    target = jax.lax.stop_gradient(target)
    return -jnp.mean(jnp.sum(unit_rows(prediction) * unit_rows(target), axis=-1))
