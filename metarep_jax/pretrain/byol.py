"""BYOL: a student predicts, from one view, what its own momentum teacher makes of the other."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array

from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_momentum, check_positive, with_least_batch
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.simsiam import negative_cosine
from metarep_jax.pretrain.teacher import follow, with_teacher
from metarep_jax.pretrain.views import Augment, make_views
from metarep_jax.types import Keys, Objective


def byol(
    encoder: nn.Module,
    *,
    augment: Augment,
    momentum: float = 0.99,
    hidden: int = 512,
    out: int = 128,
    axis_name: str | None = None,
    total_steps: int | None = None,
) -> Objective:
    """Bootstrap your own latent: regression onto the projections of a momentum teacher, without negatives.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      momentum: τ of the teacher, where it starts; the paper has 0.996 for 1,000 epochs, 0.99 for 300. In [0, 1).
      hidden, out: widths of projector and predictor, two layers each; the paper has 4096 and 256.
      axis_name: the mapped axis over which the batch is sharded, or None.
      total_steps: where τ reaches 1, along a cosine; None: it stays.

    Returns:
      An ``Objective`` whose loss lies between 0 and 8, with metrics ``embedding_std`` and ``effective_rank``. The
      teacher is ``state["teacher"]``.

    Raises:
      ValueError: for a momentum or a width out of range, and by ``init`` for a batch of one.

    References:
      Grill et al. 2020, Bootstrap Your Own Latent, https://arxiv.org/abs/2006.07733, eq. 1 and 2, algorithm 1. In this
      file both views are normalised as one batch.
    """
    check_positive("byol", hidden=hidden, out=out)
    check_momentum("byol", momentum=momentum)
    projector = Head((hidden, out), axis_name=axis_name)
    target = chain(encoder=encoder, projector=projector)
    online = chain(encoder=encoder, projector=projector, predictor=Head((hidden, out), axis_name=axis_name))

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        views = make_views(augment, batch, keys)
        outputs, moved = apply_to_views(online, params, state, views)
        targets, _ = apply_to_views(target, state["teacher"], state, views)
        (q1, q2), (z1, z2) = outputs["predictor"], targets["projector"]
        value = (2 + 2 * negative_cosine(q1, z2)) + (2 + 2 * negative_cosine(q2, z1))
        return value, (moved, embedding_health(outputs["encoder"], axis_name))

    init = with_least_batch(
        "byol", with_teacher(online.init, "encoder", "projector"), "since its heads normalise over them"
    )
    return Objective(init, loss, encoder_features(encoder), follow(momentum, total_steps), needs=("views",))
