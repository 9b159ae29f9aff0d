"""What is watched for collapse."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain.devices import mean_over
from metarep_jax.types import Metrics

COLLAPSED_STD = 0.1  # of the healthy value 1; a collapsed encoder is below 0.01 within a few hundred steps
COLLAPSED_RANK = 1.5  # one direction carries (nearly) all the variance


def embedding_health(embeddings: Float[Array, "*n dim"], axis_name: str | None = None) -> Metrics:
    """Signs of collapse, over the global batch (and over its views, where the leading axis counts them).

    ``embedding_std``: the standard deviation of the unit-length embeddings' coordinates times √dim; near 1 when
    directions are spread evenly, 0 when all embeddings agree (Chen & He 2020, section 4.1).
    ``effective_rank``: the participation ratio (Σλ)²/Σλ² of the covariance's eigenvalues λ, between 1 and dim;
    chosen over the entropy form because it needs no eigenvalues, only a trace.
    """
    embeddings = jax.lax.stop_gradient(embeddings.astype(jnp.float32)).reshape(-1, embeddings.shape[-1])
    unit = unit_rows(embeddings)
    moments = jnp.stack([unit.mean(0), jnp.square(unit).mean(0), embeddings.mean(0)])
    unit_mean, unit_square, middle = mean_over(moments, axis_name)
    spread = jnp.sqrt(jnp.maximum(unit_square - unit_mean**2, 0)).mean() * jnp.sqrt(1.0 * unit.shape[1])
    centred = embeddings - middle
    raw = mean_over(centred.T @ centred / centred.shape[0], axis_name)
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
