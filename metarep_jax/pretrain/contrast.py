"""The contrastive loss of two views, over the global batch, and what is watched for collapse."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metarep_jax.types import Metrics

COLLAPSED_STD = 0.1  # of the healthy value 1; a collapsed encoder is below 0.01 within a few hundred steps
COLLAPSED_RANK = 1.5  # one direction carries (nearly) all the variance


def gather_rows(rows: Float[Array, "n dim"], axis_name: str | None) -> Float[Array, "all_n dim"]:
    """All devices' rows, in device order; the identity without an axis. Differentiable: its transpose is a sum
    over devices, so averaging the devices' gradients gives the gradient of the mean loss."""
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


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
    local = first.shape[0]
    anchors = _normalise(jnp.stack([first, second]))  # [2, n, dim]
    everyone = [gather_rows(view, axis_name) for view in anchors]
    total = everyone[0].shape[0]
    similarity = jnp.einsum("vnd,wmd->vnwm", anchors, jnp.stack(everyone)) / temperature  # [2, n, 2, N]
    offset = 0 if axis_name is None else jax.lax.axis_index(axis_name) * local
    own = offset + jnp.arange(local)
    itself = jnp.eye(2, dtype=bool)[:, None, :, None] & (jnp.arange(total) == own[:, None])[None, :, None, :]
    logits = jnp.where(itself, -jnp.inf, similarity).reshape(2 * local, 2 * total)
    partner = jnp.concatenate([total + own, own])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, partner).mean()
    return loss, {"contrastive_accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == partner)}


def embedding_health(embeddings: Float[Array, "n dim"], axis_name: str | None = None) -> Metrics:
    """Signs of collapse, over the global batch.

    ``embedding_std``: the standard deviation of the unit-length embeddings' coordinates times √dim; near 1 when
    directions are spread evenly, 0 when all embeddings agree (Chen & He 2020, section 4.1).
    ``effective_rank``: the participation ratio (Σλ)²/Σλ² of the covariance's eigenvalues λ, between 1 and dim;
    chosen over the entropy form because it needs no eigenvalues, only a trace.
    """
    embeddings = jax.lax.stop_gradient(embeddings.astype(jnp.float32))

    def mean(value: Array) -> Array:
        return value if axis_name is None else jax.lax.pmean(value, axis_name)

    unit = _normalise(embeddings)
    unit_mean, unit_square, middle = mean(jnp.stack([unit.mean(0), jnp.square(unit).mean(0), embeddings.mean(0)]))
    spread = jnp.sqrt(jnp.maximum(unit_square - unit_mean**2, 0)).mean() * jnp.sqrt(1.0 * unit.shape[1])
    centred = embeddings - middle
    raw = mean(centred.T @ centred / centred.shape[0])
    rank = jnp.trace(raw) ** 2 / jnp.maximum(jnp.sum(raw**2), 1e-30)
    return {"embedding_std": spread, "effective_rank": rank}


def collapse_warning(metrics: Metrics) -> str | None:
    """A sentence for the user when ``metrics`` show a collapsed representation, else None."""
    spread, rank = float(metrics.get("embedding_std", 1.0)), float(metrics.get("effective_rank", 2.0))
    if spread >= COLLAPSED_STD and rank >= COLLAPSED_RANK:
        return None
    return (
        f"the representation has collapsed: embedding_std {spread:.3f} (healthy: near 1, alarm below {COLLAPSED_STD}), "
        f"effective_rank {rank:.2f} (alarm below {COLLAPSED_RANK}). Lower the learning rate, raise the temperature, "
        "use larger batches or weaker views"
    )


def _normalise(rows: Array) -> Array:
    return rows * jax.lax.rsqrt(jnp.maximum(jnp.sum(rows**2, axis=-1, keepdims=True), 1e-12))
