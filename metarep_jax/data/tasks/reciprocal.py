"""Clusters of mutual neighbourhoods: rows belong together when they count each other, and the same others, as near."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

Sparse = Any  # a scipy.sparse.csr_matrix, whose stubs say little

LAX = 2 / 3  # of a neighbour's neighbours, the share that must be one's own before the rest is taken in


def dense_clusters(
    features: Float[np.ndarray, "n dim"], *, neighbours: int = 20, radius: float = 0.4, least: int = 4
) -> Int[np.ndarray, " n"]:
    """DBSCAN by the distance of ``neighbourhood_distances``: the cluster of each row, −1 where it lies in none.

    Rows that lie apart are left out, which makes clusters far purer than those of k-means, where each row has one.

    Args:
      features: of any length but 0; n greater than ``neighbours``.
      neighbours: see ``neighbourhood_distances``.
      radius: the distance in (0, 1) up to which rows are neighbours of each other.
      least: so many rows within the radius, itself among them, make a row a core of a cluster.

    References:
      Ester et al. 1996, A Density-Based Algorithm for Discovering Clusters (DBSCAN). On these distances as in
      unsupervised re-identification and Ji et al. 2019, https://arxiv.org/abs/1912.12178, section 2.
    """
    from sklearn.cluster import DBSCAN

    if not 0 < radius < 1:
        raise ValueError(f"dense_clusters: the radius must lie between 0 and 1, got {radius}")
    apart = neighbourhood_distances(features, neighbours=neighbours)
    found = DBSCAN(eps=radius, min_samples=least, metric="precomputed").fit(apart)
    return found.labels_.astype(np.int32)


def neighbourhood_distances(
    features: Float[np.ndarray, "n dim"], *, neighbours: int = 20, smooth: int | None = None
) -> Sparse:
    """Jaccard distances of the rows' neighbourhoods, [n, n]; pairs that are not stored have the distance 1.

    A row's neighbourhood is the rows that are among its k nearest and have it among theirs, and those of each that
    shares most of its own; members weigh exp(−squared distance of directions), and sum to 1. The weights are averaged
    over the row's nearest ones; the distance is 1 − Σ min / Σ max of two rows' weights.

    Args:
      features: compared by their directions.
      neighbours: k, from 2 to n − 1.
      smooth: how many rows, itself among them, weights are averaged over; default: k / 3.

    References:
      Zhong et al. 2017, Re-ranking Person Re-identification with k-reciprocal Encoding,
      https://arxiv.org/abs/1701.08398, sections 3.2 to 3.4.
    """
    n = len(features)
    if not 2 <= neighbours < n:
        raise ValueError(f"neighbours must be from 2 to {n - 1}, one less than there are rows, got {neighbours}")
    smooth = max(neighbours // 3, 1) if smooth is None else smooth
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-8)
    others = np.asarray(nearest_rows(jnp.asarray(unit), k=neighbours))
    nearest = np.concatenate([np.arange(n)[:, None], others], axis=1)
    weights = _neighbourhoods(unit, nearest)
    mean = sparse.csr_matrix(
        (np.full(n * smooth, 1 / smooth), (np.repeat(np.arange(n), smooth), nearest[:, :smooth].ravel())), shape=(n, n)
    )
    return _jaccard((mean @ weights).tocsr())


@partial(jax.jit, static_argnames=("k", "block"))
def nearest_rows(rows: Float[Array, "n dim"], *, k: int, block: int = 512) -> Int[Array, "n k"]:
    """For every row, the ``k`` other rows of the largest inner product with it, the nearest first.

    Args:
      rows: [n, dim], n greater than k.
      k: at least 1.
      block: rows compared at once with all others (memory: block × n floats).
    """
    n = rows.shape[0]
    starts = jnp.minimum(jnp.arange(0, n, block), max(n - block, 0))
    size = min(block, n)

    def nearest(start: Array) -> Array:
        similarity = jax.lax.dynamic_slice_in_dim(rows, start, size) @ rows.T
        similarity = similarity.at[jnp.arange(size), start + jnp.arange(size)].set(-jnp.inf)
        found = []
        for _ in range(k):  # k passes of argmax: far cheaper than a sort of n columns for small k
            best = jnp.argmax(similarity, axis=-1)
            similarity = similarity.at[jnp.arange(size), best].set(-jnp.inf)
            found.append(best)
        return jnp.stack(found, axis=-1)

    blocks = jax.lax.map(nearest, starts)
    places = (starts[:, None] + jnp.arange(size)).reshape(-1)
    return jnp.zeros((n, k), jnp.int32).at[places].set(blocks.reshape(-1, k).astype(jnp.int32))


def _mutual(nearest: Int[np.ndarray, "n k"]) -> Sparse:
    """Which rows count each other among their nearest."""
    n, k = nearest.shape
    found = sparse.csr_matrix((np.ones(n * k, np.int8), (np.repeat(np.arange(n), k), nearest.ravel())), shape=(n, n))
    return found.multiply(found.T).tocsr()


def _neighbourhoods(unit: np.ndarray, nearest: np.ndarray) -> Sparse:
    """The weights of each row's neighbourhood, which sum to 1."""
    n, k = nearest.shape
    whole, half = _mutual(nearest), _mutual(nearest[:, : (k - 1) // 2 + 1])
    lists: list[list[np.ndarray]] = [np.split(m.indices, m.indptr[1:-1]) for m in (whole, half)]
    members, values = [], []
    for row, own in enumerate(lists[0]):
        wider = [own]
        for other in own:
            theirs = lists[1][other]
            if np.isin(theirs, own).sum() > LAX * len(theirs):
                wider.append(theirs)
        member = np.unique(np.concatenate(wider))
        weight = np.exp(2 * (unit[member] @ unit[row] - 1))
        members.append(member)
        values.append(weight / weight.sum())
    start = np.concatenate([[0], np.cumsum([len(member) for member in members])])
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(members), start), shape=(n, n))


def _jaccard(weights: Sparse) -> Sparse:
    """1 − Σ min / Σ max of every two rows that share a member; rows sum to 1, so that Σ max = 2 − Σ min."""
    by_member = weights.tocsc()
    columns, values = [], []
    for row in range(weights.shape[0]):
        own = slice(weights.indptr[row], weights.indptr[row + 1])
        parts = [slice(by_member.indptr[m], by_member.indptr[m + 1]) for m in weights.indices[own]]
        others = np.concatenate([by_member.indices[part] for part in parts])
        least = np.concatenate(
            [np.minimum(by_member.data[part], own_weight) for part, own_weight in zip(parts, weights.data[own])]
        )
        other, place = np.unique(others, return_inverse=True)
        common = np.bincount(place, least)
        columns.append(other)
        values.append(np.maximum(1 - common / (2 - common), 0.0))
    start = np.concatenate([[0], np.cumsum([len(column) for column in columns])])
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), start), shape=weights.shape)
