"""Labelled arrays as pools on the device."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from metarep_jax.types import Partnered, Pool


def pool_of_arrays(images: Shaped[np.ndarray, "n ..."], labels: Shaped[np.ndarray, " n"], classes: int = 0) -> Pool:
    """A pool of host arrays, with the table of each class's rows.

    Args:
      images: [n, ...]; uint8 images stay uint8.
      labels: integers [n], from 0.
      classes: the least number of classes, for classes without any example.

    Raises:
      ValueError: for lengths that differ, labels that are not integers from 0, one an example, or inputs that are not
        finite.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(
            f"a pool's labels are one integer an example, got shape {labels.shape}; of one-hot rows give argmax(1)"
        )
    if len(images) != len(labels):
        raise ValueError(f"a pool needs one label an example, got {len(images)} inputs and {len(labels)} labels")
    if len(labels) and (not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0):
        raise ValueError(f"a pool's labels are integers from 0, got {labels.dtype} with least value {labels.min()}")
    check_finite(images)
    labels = labels.astype(np.int32)
    count = np.bincount(labels, minlength=classes).astype(np.int32)
    order = np.argsort(labels, kind="stable")
    members = np.zeros((len(count), max(count.max(initial=0), 1)), np.int32)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(count) - count, count)  # of a row among those of its class
    members[labels[order], place] = order
    return Pool(jnp.asarray(images), jnp.asarray(labels), jnp.asarray(members), jnp.asarray(count))


def check_finite(inputs: Shaped[np.ndarray, "n ..."], part: str = "") -> None:
    """Raises ValueError for floats that are NaN or infinite; names the first row, and ``part`` where it is given."""
    if np.issubdtype(inputs.dtype, np.floating) and not np.isfinite(inputs).all():
        bad = np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1))
        raise ValueError(
            f"{part}{part and ': '}{len(bad)} of {len(inputs)} inputs hold NaN or infinite values, the first is row "
            f"{bad[0]}"
        )


def joined_pools(first: Pool, second: Pool) -> Pool:
    """The classes of both pools, those of the second numbered after those of the first."""
    images = np.concatenate([np.asarray(first.inputs), np.asarray(second.inputs)])
    classes = first.count.shape[0]
    labels = np.concatenate([np.asarray(first.label), np.asarray(second.label) + classes])
    return pool_of_arrays(images, labels, classes=classes + second.count.shape[0])


def with_partners(pool: Pool, k: int) -> Partnered:
    """The pool with ``k`` places for partners a row, at first all the row itself (see ``pretrain.neighbours``).

    Raises:
      ValueError: when ``k`` is below 1, or not below the number of rows.
    """
    rows = pool.label.shape[0]
    if not 1 <= k < rows:
        raise ValueError(f"with_partners: k must be in 1 to {rows - 1} (the pool has {rows} rows), got {k}")
    return Partnered(pool, jnp.tile(jnp.arange(rows, dtype=jnp.int32)[:, None], (1, k)))


def with_classmates(pool: Pool, k: int = 16) -> Partnered:
    """The pool with ``k`` images of the row's own class as its partners, drawn once; the same for the same pool.

    A row may be its own partner, and is where it is alone in its class.
    """
    classmates = np.asarray(pool.count)[np.asarray(pool.label)]
    place = np.random.default_rng(0).integers(0, classmates[:, None], (len(classmates), k))
    return Partnered(pool, pool.members[pool.label[:, None], jnp.asarray(place, jnp.int32)])
