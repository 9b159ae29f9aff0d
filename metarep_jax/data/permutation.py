"""A shuffle without state: the place of any row in any epoch's order, computed from a key."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Key, UInt

ROUNDS = 6  # pairs of rounds; a chi-square test on neighbouring places cannot tell 4 or more from random


def epoch_rows(root: Key[Array, ""], position: UInt[Array, " n"], rows: int, batch: int) -> Int[Array, " n"]:
    """The rows that stand at ``position`` of an endless sequence of epochs, each a permutation of all rows.

    Args:
      root: chooses the sequence.
      position: uint32, within one batch of the sequence; positions repeat after 2³² examples.
      rows: in an epoch, at least 1.
      batch: the length of the batch that ``position`` lies in: it may touch several epochs.
    """
    size = jnp.uint32(rows)
    epoch = position // size
    first = jnp.min(epoch)
    spanned = 1 + -(-batch // rows)
    keys = jax.vmap(lambda e: jax.random.bits(jax.random.fold_in(root, e), (2 * ROUNDS,), jnp.uint32))(
        first + jnp.arange(spanned, dtype=jnp.uint32)
    )
    return permute(position % size, keys[epoch - first], rows).astype(jnp.int32)


def permute(place: UInt[Array, " n"], keys: UInt[Array, "n rounds"], rows: int) -> UInt[Array, " n"]:
    """A keyed bijection of 0 … rows-1, applied to each place under its own round keys.

    A Feistel network with modular additions on a grid of a × b ≥ rows cells, walked until it falls inside: method 3
    (generalised Feistel) with cycle walking of Black & Rogaway 2002, Ciphers with Arbitrary Finite Domains,
    https://doi.org/10.1007/3-540-45760-7_9. A good shuffle, not a cipher.
    """
    a = math.isqrt(rows - 1) + 1 if rows > 1 else 1
    b = -(-rows // a)

    def once(x: Array) -> Array:
        left, right = x // jnp.uint32(b), x % jnp.uint32(b)
        for r in range(0, keys.shape[-1], 2):
            left = (left + _hash(right ^ keys[:, r]) % jnp.uint32(a)) % jnp.uint32(a)
            right = (right + _hash(left ^ keys[:, r + 1]) % jnp.uint32(b)) % jnp.uint32(b)
        return left * jnp.uint32(b) + right

    outside = lambda x: x >= jnp.uint32(rows)  # noqa: E731
    return lax.while_loop(lambda x: outside(x).any(), lambda x: jnp.where(outside(x), once(x), x), once(place))


def _hash(x: Array) -> Array:
    """The 32-bit finaliser of MurmurHash3 (Austin Appleby, public domain)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
