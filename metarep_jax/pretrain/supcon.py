"""Supervised contrast: views of all images of a class attract each other. The one objective here that needs labels."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_positive, with_least_batch
from metarep_jax.pretrain.contrast import similarities
from metarep_jax.pretrain.devices import gather_rows
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.views import Augment, make_views
from metarep_jax.types import Keys, Metrics, Objective


def supcon(
    encoder: nn.Module,
    *,
    augment: Augment,
    temperature: float = 0.1,
    hidden: int = 256,
    out: int = 128,
    axis_name: str | None = None,
) -> Objective:
    """Supervised contrastive learning: SimCLR whose positives are all views of the anchor's class in the global batch.

    Where classes are many, a batch holds few images of each. It may have a ``partner`` beside each image, another one
    of its class (``data.with_classmates``), which then gives the second view.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      temperature: divides the cosines; positive. The paper has 0.1.
      hidden, out: sizes of the projector's two layers.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` with metrics ``contrastive_accuracy`` (the share of views whose most similar other view is of the
      same class), ``embedding_std`` and ``effective_rank``.

    Raises:
      ValueError: for settings that are not positive, by ``init`` for a batch of one, and by ``loss`` for one without
        labels.

    References:
      Khosla et al. 2020, Supervised Contrastive Learning, https://arxiv.org/abs/2004.11362, eq. 2 (L_out).
    """
    check_positive("supcon", temperature=temperature, hidden=hidden, out=out)
    net = chain(encoder=encoder, projector=Head((hidden, out), axis_name=axis_name))

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        if "label" not in batch:
            raise ValueError(f"supcon needs labelled batches, with a label an image; this one has {sorted(batch)}")
        outputs, state = apply_to_views(net, params, state, make_views(augment, batch, keys))
        first, second = outputs["projector"]
        value, metrics = supervised_contrast(
            first, second, batch["label"], temperature=temperature, axis_name=axis_name
        )
        return value, (state, metrics | embedding_health(outputs["encoder"], axis_name))

    init = with_least_batch("supcon", net.init, "since it contrasts them with each other")
    return Objective(init, loss, encoder_features(encoder), needs=("views", "classmates"))


def supervised_contrast(
    first: Float[Array, "n dim"],
    second: Float[Array, "n dim"],
    label: Int[Array, " n"],
    *,
    temperature: float = 0.1,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The mean over anchors of the mean over positives of −log p(positive | anchor) (eq. 2); where every label is
    alone, NT-Xent.

    Args:
      first, second: this device's embeddings of two views; need not be normalised.
      label: of the examples.
      temperature, axis_name: see ``supcon``.
    """
    logits, own = similarities(first, second, temperature=temperature, axis_name=axis_name)
    labels, others = jnp.tile(label, 2), jnp.tile(gather_rows(label, axis_name), 2)
    total = others.shape[0]
    itself = jnp.arange(total) == jnp.concatenate([own, total // 2 + own])[:, None]
    positive = (labels[:, None] == others) & ~itself
    logp = jnp.where(positive, jax.nn.log_softmax(logits, axis=-1), 0.0)  # an anchor's own is −∞
    loss = -jnp.mean(logp.sum(-1) / positive.sum(-1))
    return loss, {"contrastive_accuracy": jnp.mean(labels == others[jnp.argmax(logits, axis=-1)])}
