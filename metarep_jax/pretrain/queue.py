"""A queue of earlier batches' embeddings, first in, first out; the same on every device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from metarep_jax.encoders.features import unit_rows


class Queue(NamedTuple):
    """``rows`` of unit length; the next batch overwrites those from ``place`` on, which are the oldest."""

    rows: Float[Array, "k dim"]
    place: Int[Array, ""]


def first_queue(key: Key[Array, ""], size: int, dim: int, batch: int) -> Queue:
    """Random directions, until the first batches have replaced them.

    Raises:
      ValueError: when batches of ``batch`` rows do not fill a queue of ``size`` rows exactly.
    """
    check_queue(size, batch)
    return Queue(unit_rows(jax.random.normal(key, (size, dim))), jnp.int32(0))


def enqueue(queue: Queue, rows: Float[Array, "n dim"]) -> Queue:
    """The queue with all devices' ``rows`` in the place of its oldest."""
    size, n = queue.rows.shape[0], rows.shape[0]
    check_queue(size, n)
    written = jax.lax.dynamic_update_slice_in_dim(queue.rows, rows.astype(queue.rows.dtype), queue.place, 0)
    return Queue(written, (queue.place + n) % size)


def check_queue(size: int, batch: int) -> None:
    """Raises ValueError when batches of ``batch`` rows do not fill a queue of ``size`` rows exactly."""
    if size < 1 or size % batch:
        below = size // batch * batch
        fits = f"{below} or {below + batch}" if below > 0 else f"{batch}"
        raise ValueError(
            f"a queue of {size} embeddings cannot be filled by batches of {batch}: the batch must divide it; "
            f"take a queue of {fits}"
        )
