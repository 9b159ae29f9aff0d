"""Frozen features of a whole pool, computed once, and their whitening."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Shaped

from metarep_jax.types import Pool


class Whitening(NamedTuple):
    """The affine map ``(features − mean) @ matrix``."""

    mean: Float[Array, " dim"]
    matrix: Float[Array, "dim dim"]

    def __call__(self, features: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
        return (features - self.mean) @ self.matrix


class Whitened(NamedTuple):
    """An encoder whose features are whitened; ``init`` and ``apply`` as a Linen encoder's, with its variables."""

    encoder: nn.Module
    whitening: Whitening

    def init(self, key: Array, x: Array) -> Any:
        return self.encoder.init(key, x)

    def apply(self, variables: Any, x: Array, *args: Any, **kwargs: Any) -> Any:
        found = self.encoder.apply(variables, x, *args, **kwargs)
        if kwargs.get("mutable"):
            return self.whitening(found[0]), found[1]
        return self.whitening(found)


def fit_whitening(features: Float[Array, "n dim"], power: float = 0.25, floor: float = 1e-4) -> Whitening:
    """Centres features and scales their principal directions by eigenvalue^(−power), fitted on training features.

    ``power`` 0.5 whitens fully, 0 only centres; 0.25, half-whitening, serves cosine similarities best.

    Args:
      features: [n, dim], n at least 2.
      power: in [0, 0.5].
      floor: eigenvalues below this share of the largest are raised to it.

    References:
      Su et al. 2021, Whitening Sentence Representations, https://arxiv.org/abs/2103.15316, algorithm 1 (power 0.5).
    """
    rows = np.asarray(features, np.float64)
    mean = rows.mean(0)
    values, vectors = np.linalg.eigh(np.cov(rows - mean, rowvar=False))
    scales = np.maximum(values, floor * values.max()) ** -power
    return Whitening(jnp.asarray(mean, jnp.float32), jnp.asarray(vectors * scales, jnp.float32))


def compute_features(
    embed: Callable[[Array], Array], inputs: Shaped[Array, "n ..."], *, batch: int = 256
) -> Float[Array, "n dim"]:
    """``embed`` of every row, ``batch`` rows at a time in one compiled call."""
    n = inputs.shape[0]
    starts = jnp.minimum(jnp.arange(0, max(n, 1), batch), max(n - batch, 0))

    @jax.jit
    def all_rows(inputs: Array) -> Array:
        size = min(batch, n)
        blocks = jax.lax.map(lambda start: embed(jax.lax.dynamic_slice_in_dim(inputs, start, size)), starts)
        whole = jnp.zeros((n, blocks.shape[-1]), blocks.dtype)
        return jax.lax.fori_loop(
            0,
            len(starts),
            lambda i, whole: jax.lax.dynamic_update_slice_in_dim(whole, blocks[i], starts[i], 0),
            whole,
        )

    return all_rows(inputs)


def feature_pool(embed: Callable[[Array], Array], pool: Pool, *, rotations: bool = False, batch: int = 256) -> Pool:
    """The pool with features for inputs; ``rotations``: every quarter turn of a class becomes a class of its own.

    With ``Identity()`` for an encoder, any learner that leaves the encoder alone gives on this pool what it gives on
    the images, without computing a feature twice.
    """
    turns = range(4) if rotations else range(1)
    inputs = [compute_features(embed, jnp.rot90(pool.inputs, turn, axes=(1, 2)), batch=batch) for turn in turns]
    classes, rows = pool.members.shape[0], pool.label.shape[0]
    return Pool(
        inputs=jnp.concatenate(inputs),
        label=jnp.concatenate([pool.label + turn * classes for turn in turns]),
        members=jnp.concatenate([pool.members + turn * rows for turn in turns]),
        count=jnp.concatenate([pool.count for _ in turns]),
    )


class Identity(nn.Module):
    """An encoder for inputs that are features already."""

    @nn.compact
    def __call__(self, x: Float[Array, "n dim"], mask: Any = None, running: bool = False) -> Float[Array, "n dim"]:
        del mask, running
        return x


def split_examples(pool: Pool, key: Array, test_share: float = 0.25) -> tuple[Int[Array, " a"], Int[Array, " b"]]:
    """Rows for training and for testing, drawn within every class; at least one of each a class.

    Raises:
      ValueError: when a class has fewer than two examples, or the share is not between 0 and 1.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share}")
    count, members = np.asarray(pool.count), np.asarray(pool.members)
    if count.min() < 2:
        raise ValueError(f"a labelled split needs 2 examples a class; class {int(count.argmin())} has {count.min()}")
    train, test = [], []
    for c, each in enumerate(jax.random.split(key, len(count))):
        rows = np.asarray(jax.random.permutation(each, members[c, : count[c]]))
        held = min(max(round(test_share * len(rows)), 1), len(rows) - 1)
        test.append(rows[:held])
        train.append(rows[held:])
    return jnp.asarray(np.concatenate(train)), jnp.asarray(np.concatenate(test))
