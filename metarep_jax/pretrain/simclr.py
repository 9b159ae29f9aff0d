"""SimCLR: two views of an image attract each other and repel all other images of the global batch."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array

from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_positive, with_least_batch
from metarep_jax.pretrain.contrast import nt_xent
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.views import Augment, make_views
from metarep_jax.types import Keys, Objective


def simclr(
    encoder: nn.Module,
    *,
    augment: Augment,
    temperature: float = 0.1,
    hidden: int = 256,
    out: int = 128,
    axis_name: str | None = None,
) -> Objective:
    """Contrastive learning of visual representations with in-batch negatives.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      temperature: of NT-Xent; positive.
      hidden, out: sizes of the projector's two layers; its output serves the loss alone (section 4.2).
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` whose metrics are ``contrastive_accuracy``, ``embedding_std`` and ``effective_rank``.

    Raises:
      ValueError: for a temperature or layer size that is not positive, and by ``init`` for a batch of one.

    References:
      Chen et al. 2020, https://arxiv.org/abs/2002.05709, algorithm 1.
    """
    check_positive("simclr", temperature=temperature, hidden=hidden, out=out)
    net = chain(encoder=encoder, projector=Head((hidden, out), axis_name=axis_name))

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        outputs, state = apply_to_views(net, params, state, make_views(augment, batch, keys))
        first, second = outputs["projector"]
        value, metrics = nt_xent(first, second, temperature=temperature, axis_name=axis_name)
        return value, (state, metrics | embedding_health(outputs["encoder"], axis_name))

    init = with_least_batch("simclr", net.init, "since it contrasts them with each other")
    return Objective(init, loss, encoder_features(encoder), needs=("views",))
