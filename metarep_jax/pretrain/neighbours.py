"""Nearest neighbours as partners: an image's other view may be a view of an image that looks alike."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@partial(jax.jit, static_argnames=("k", "block"))
def mutual_neighbours(features: Float[Array, "n dim"], *, k: int = 5, block: int = 512) -> Int[Array, "n k"]:
    """For every row, those of its ``k`` nearest rows by cosine that count it among their own ``k`` nearest.

    Mutual neighbours share a class far more often than plain ones. Places that no mutual neighbour fills hold the
    row's own number, so that a uniform draw of a place gives the row itself where neighbours are few.

    Args:
      features: [n, dim], n greater than k.
      k: neighbours looked at, at least 1.
      block: rows compared at once with all others (memory: block × n floats).

    References:
      Dwibedi et al. 2021, With a Little Help from My Friends, https://arxiv.org/abs/2104.14548, for neighbours as
      positives; mutuality as in k-reciprocal re-ranking, Zhong et al. 2017, https://arxiv.org/abs/1701.08398.
    """
    n = features.shape[0]
    unit = features * jax.lax.rsqrt(jnp.maximum(jnp.sum(features**2, axis=-1, keepdims=True), 1e-12))
    starts = jnp.minimum(jnp.arange(0, n, block), max(n - block, 0))
    size = min(block, n)

    def nearest(start: Array) -> Array:
        similarity = jax.lax.dynamic_slice_in_dim(unit, start, size) @ unit.T
        similarity = similarity.at[jnp.arange(size), start + jnp.arange(size)].set(-jnp.inf)
        found = []
        for _ in range(k):  # k passes of argmax: far cheaper than a sort of n columns for small k
            best = jnp.argmax(similarity, axis=-1)
            similarity = similarity.at[jnp.arange(size), best].set(-jnp.inf)
            found.append(best)
        return jnp.stack(found, axis=-1)

    blocks = jax.lax.map(nearest, starts)
    rows = starts[:, None] + jnp.arange(size)
    table = jnp.zeros((n, k), jnp.int32).at[rows.reshape(-1)].set(blocks.reshape(-1, k).astype(jnp.int32))
    own = jnp.arange(n, dtype=jnp.int32)[:, None]
    mutual = (table[table] == own[..., None]).any(-1)
    return jnp.where(mutual, table, own)
