"""Examples taken a few at a time, so that what is computed of them stays in the cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def map_chunks(function: Callable[..., Array], each: int, *arrays: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """``function(*arrays)``, which acts on each example by itself, of ``each`` examples at a time."""
    whole, split = _split(each, *arrays)
    if split is None:
        return function(*arrays)
    y = lax.map(lambda parts: function(*parts), split)
    y = y.reshape(whole, *y.shape[2:])
    rest = [array[whole:] for array in arrays]
    return jnp.concatenate([y, function(*rest)]) if len(rest[0]) else y


def sum_chunks(function: Callable[..., Array], each: int, *arrays: Float[Array, "n ..."]) -> Array:
    """``function(*arrays)``, which sums over examples, of ``each`` examples at a time."""
    whole, split = _split(each, *arrays)
    if split is None:
        return function(*arrays)
    like = jax.eval_shape(function, *(part[0] for part in split))
    total, _ = lax.scan(
        lambda total, parts: (total + function(*parts), None), jnp.zeros(like.shape, like.dtype), tuple(split)
    )
    rest = [array[whole:] for array in arrays]
    return total + function(*rest) if len(rest[0]) else total


def _split(each: int, *arrays: Array) -> tuple[int, list[Array] | None]:
    n = len(arrays[0])
    each = max(each, 1)
    if n < 2 * each:
        return n, None
    whole = n // each * each
    return whole, [array[:whole].reshape(-1, each, *array.shape[1:]) for array in arrays]
