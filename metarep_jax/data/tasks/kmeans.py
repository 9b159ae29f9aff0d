"""k-means on the device."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

BLOCK = 4096  # rows compared with all centres at once


class Clusters(NamedTuple):
    """Which centre each row belongs to, and its squared distance from it."""

    label: Int[Array, " n"]
    distance: Float[Array, " n"]
    centres: Float[Array, "k dim"]


@partial(jax.jit, static_argnames=("clusters", "iterations"))
def kmeans(key: Key[Array, ""], rows: Float[Array, "n dim"], *, clusters: int, iterations: int = 50) -> Clusters:
    """Lloyd's algorithm from k-means++ seeds, until no row changes its cluster or ``iterations`` are done.

    A cluster that loses all its rows keeps its centre.

    Args:
      key: chooses the seeds.
      rows: [n, dim].
      clusters: 1 to n.
      iterations: at most.

    Raises:
      ValueError: for a number of clusters out of range.

    References:
      Arthur & Vassilvitskii 2007, k-means++: The Advantages of Careful Seeding, section 2.2 (the seeds); Lloyd 1982,
      https://doi.org/10.1109/TIT.1982.1056489.
    """
    n = rows.shape[0]
    if not 1 <= clusters <= n:
        raise ValueError(f"kmeans: the number of clusters must be in 1 to {n}, the number of rows, got {clusters}")
    centres = seeds(key, rows, clusters)

    def assign(centres: Array) -> tuple[Array, Array]:
        squares = jnp.sum(centres**2, axis=-1)

        def nearest(row: Array) -> tuple[Array, Array]:
            distances = squares - 2 * jnp.matmul(centres, row, precision=lax.Precision.HIGHEST)
            best = jnp.argmin(distances)
            return best.astype(jnp.int32), distances[best] + jnp.sum(row**2)

        return lax.map(nearest, rows, batch_size=min(BLOCK, n))

    def move(carry: tuple) -> tuple:
        step, centres, label, _ = carry
        count = jnp.zeros(clusters).at[label].add(1)
        total = jnp.zeros_like(centres).at[label].add(rows)
        centres = jnp.where(count[:, None] > 0, total / jnp.maximum(count, 1)[:, None], centres)
        moved, _ = assign(centres)
        return step + 1, centres, moved, jnp.any(moved != label)

    first, _ = assign(centres)
    start = (0, centres, first, jnp.array(True))
    _, centres, label, _ = lax.while_loop(lambda carry: (carry[0] < iterations) & carry[3], move, start)
    return Clusters(label, jnp.sum((rows - centres[label]) ** 2, axis=-1), centres)


def seeds(key: Key[Array, ""], rows: Float[Array, "n dim"], clusters: int) -> Float[Array, "k dim"]:
    """Rows chosen one after another, each with probability proportional to its squared distance from those before."""
    keys = jax.random.split(key, clusters)
    first = rows[jax.random.randint(keys[0], (), 0, rows.shape[0])]
    centres = jnp.zeros((clusters, rows.shape[1]), rows.dtype).at[0].set(first)

    def choose(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centres, distance = carry
        chosen = rows[jax.random.categorical(keys[i], jnp.log(distance))]
        return centres.at[i].set(chosen), jnp.minimum(distance, jnp.sum((rows - chosen) ** 2, axis=-1))

    return lax.fori_loop(1, clusters, choose, (centres, jnp.sum((rows - first) ** 2, axis=-1)))[0]
