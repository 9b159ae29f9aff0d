"""Frozen features of many rows, their whitening, and their directions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Key, Shaped


def at_least_float32(rows: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Numbers of a shorter format as float32, for what must not be rounded to it: losses, statistics, solutions."""
    return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))


class Whitening(NamedTuple):
    """The affine map ``(features − mean) @ matrix``."""

    mean: Float[Array, " dim"]
    matrix: Float[Array, "dim dim"]

    def __call__(self, features: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
        return (features - self.mean) @ self.matrix


class Whitened(nn.Module):
    """An encoder whose features are whitened: ``apply`` as a Linen encoder's, ``batch_stats`` from ``whitened_stats``.

    The whitening is data, so that what is compiled for one serves for another.
    """

    encoder: nn.Module

    @property
    def takes(self) -> str:
        """What the encoder takes."""
        return getattr(self.encoder, "takes", "images")

    def apply(self, variables: Any, x: Array, *args: Any, **kwargs: Any) -> Any:
        """As the encoder's own; statistics that move come back beside the whitening, and layers as they are."""
        stats = variables["batch_stats"]
        inner = {"params": variables["params"], "batch_stats": stats["encoder"]}
        found = self.encoder.apply(inner, x, *args, **kwargs)
        if not kwargs.get("mutable"):
            return stats["whitening"](found)
        moved = {"encoder": found[1].get("batch_stats", {}), "whitening": stats["whitening"]}
        return stats["whitening"](found[0]), {**found[1], "batch_stats": moved}


def whitened_stats(stats: Any, whitening: Whitening) -> dict[str, Any]:
    """An encoder's ``batch_stats`` with the whitening beside them, as ``Whitened`` takes them."""
    return {"encoder": stats, "whitening": whitening}


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
    mean = features.mean(0)
    centred = features - mean
    values, vectors = jnp.linalg.eigh(centred.T @ centred / (features.shape[0] - 1))
    return Whitening(mean, vectors * jnp.maximum(values, floor * values.max()) ** -power)


def unit_rows(rows: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
    """Each row divided by its Euclidean length. A row of zeros stays, and has a gradient that is a number."""
    return rows * lax.rsqrt(jnp.maximum(jnp.sum(rows**2, -1, keepdims=True), 1e-16))


def compute_features(
    embed: Callable[[Array], Array], inputs: Shaped[Array, "n ..."], *, batch: int = 256
) -> Float[Array, "n dim"]:
    """``embed`` of every row, ``batch`` rows at a time, always in batches of one size.

    ``embed`` is called once a batch: give a compiled one, and the same object again, and nothing compiles twice.
    """
    n = inputs.shape[0]
    size = min(batch, n)
    if n <= size:
        return embed(inputs)
    blocks = [embed(lax.dynamic_slice_in_dim(inputs, start, size)) for start in range(0, n - size + 1, size)]
    if rest := n % size:
        blocks.append(embed(lax.dynamic_slice_in_dim(inputs, n - size, size))[size - rest :])
    return jnp.concatenate(blocks)


def over_views(
    embed: Callable[[Array], Array], augment: Callable[[Array, Array], Array], views: int, key: Key[Array, ""]
) -> Callable[[Array], Array]:
    """``embed``, averaged over an image and ``views`` views of it: the mean of the features' directions.

    What the features make of a small shift or turn of an image is left out of the mean. Every image is given the same
    transformations, so that the average is a function of the image alone.

    Args:
      embed: inputs [n, ...] → features [n, dim].
      augment: ``(keys [n], inputs) -> views``, compiled.
      views: of an image beside itself; with 0, the direction of ``embed``.
      key: decides the transformations.

    Raises:
      ValueError: for a negative number of views.
    """
    if views < 0:
        raise ValueError(f"over_views: views must not be negative, got {views}")
    keys = jax.random.split(key, views)

    def averaged(inputs: Array) -> Array:
        total = unit_rows(embed(inputs))
        for view_key in keys:
            total = total + unit_rows(embed(augment(jnp.broadcast_to(view_key, inputs.shape[:1]), inputs)))
        return total / (views + 1)

    return averaged


class Identity(nn.Module):
    """An encoder for inputs that are features already."""

    @nn.compact
    def __call__(self, x: Float[Array, "n dim"], mask: Any = None, running: bool = False) -> Float[Array, "n dim"]:
        del mask, running
        return x
