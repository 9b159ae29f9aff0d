"""Contrastive losses over the global batch."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain.devices import gather_rows, own_rows
from metarep_jax.types import Metrics


def nt_xent(
    first: Float[Array, "n dim"],
    second: Float[Array, "n dim"],
    *,
    temperature: float = 0.1,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The normalised temperature-scaled cross-entropy of SimCLR: a view must find its partner among all others.

    Every view of the global batch is a candidate; a view is never its own candidate. Similarities are cosines.

    Args:
      first, second: this device's embeddings of two views of the same examples, [n, dim]; need not be normalised.
      temperature: divides the cosines; positive.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      The mean loss over this device's 2n anchors, and ``contrastive_accuracy``, the share of anchors whose partner
      is the most similar candidate.

    References:
      Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, eq. 1
      (https://arxiv.org/abs/2002.05709).
    """
    logits, own = similarities(first, second, temperature=temperature, axis_name=axis_name)
    partner = jnp.concatenate([logits.shape[1] // 2 + own, own])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, partner).mean()
    return loss, {"contrastive_accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == partner)}


def similarities(
    first: Float[Array, "n dim"], second: Float[Array, "n dim"], *, temperature: float, axis_name: str | None
) -> tuple[Float[Array, "two_n all_two_n"], Int[Array, " n"]]:
    """Cosines, divided by ``temperature``, of this device's 2n views to all 2N views, −∞ to itself; and ``own_rows``.

    Rows and columns are ordered by view and then by example.
    """
    local = first.shape[0]
    anchors = unit_rows(jnp.stack([first, second]))  # [2, n, dim]
    everyone = jnp.stack([gather_rows(view, axis_name) for view in anchors])
    total, own = everyone.shape[1], own_rows(local, axis_name)
    similarity = jnp.einsum("vnd,wmd->vnwm", anchors, everyone) / temperature  # [2, n, 2, N]
    itself = jnp.eye(2, dtype=bool)[:, None, :, None] & (jnp.arange(total) == own[:, None])[None, :, None, :]
    return jnp.where(itself, -jnp.inf, similarity).reshape(2 * local, 2 * total), own


def info_nce(
    query: Float[Array, "n dim"],
    key: Float[Array, "n dim"],
    negatives: Float[Array, "k dim"] | None = None,
    *,
    temperature: float,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """InfoNCE: a query must find the key of the same row among others.

    Args:
      query, key: of unit length.
      negatives: of unit length; None: the other keys of the global batch.
      temperature: divides the cosines; positive.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      The mean loss over this device's queries, and ``contrastive_accuracy``, the share of queries whose key is the most
      similar candidate.

    References:
      van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, eq. 4; He et al. 2020 (MoCo), eq. 1,
      https://arxiv.org/abs/1911.05722, with a queue of negatives.
    """
    if negatives is None:
        logits, right = query @ gather_rows(key, axis_name).T, own_rows(query.shape[0], axis_name)
    else:
        positive = jnp.sum(query * key, axis=-1, keepdims=True)
        logits, right = jnp.concatenate([positive, query @ negatives.T], 1), jnp.zeros(query.shape[0], jnp.int32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits / temperature, right).mean()
    return loss, {"contrastive_accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == right)}
