"""Decoders: features [n, dim] back to inputs, for objectives that reconstruct. Dropped afterwards.

They compute in the number format of the features; parameters are float32.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders.layers import PatchConv

LEAST_WIDTH = 16  # channels that are not halved further
LEAST_SIDE = 8  # an image grows from a grid of at most so many cells a side


class ImageDecoder(nn.Module):
    """Features to images of ``shape`` (h, w, c): a small grid, doubled by nearest neighbours and 3×3 convolutions.

    ``width`` channels on the grid, half as many after each doubling (not below ``LEAST_WIDTH``): most of the work is at
    full size. Without a last activation: means of a Gaussian, or logits of a Bernoulli. Doubling before a convolution
    leaves no checkerboard, as transposed convolutions do (Odena et al. 2016,
    https://distill.pub/2016/deconv-checkerboard).
    """

    shape: tuple[int, ...]
    width: int = 64

    @nn.compact
    def __call__(self, features: Float[Array, "n dim"]) -> Float[Array, "n h w c"]:
        h, w, c = self.shape
        doublings = max(math.ceil(math.log2(max(h, w) / LEAST_SIDE)), 0)
        rows, columns = (-(-side // 2**doublings) for side in (h, w))
        dtype = features.dtype
        x = nn.relu(nn.Dense(rows * columns * self.width, dtype=dtype)(features))
        x = x.reshape(-1, rows, columns, self.width)
        for doubling in range(1, doublings + 1):
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            width = max(self.width // 2**doubling, min(self.width, LEAST_WIDTH))
            x = nn.relu(PatchConv(width, dtype=dtype)(x))
        return PatchConv(c, dtype=dtype)(x)[:, :h, :w]


class MLPDecoder(nn.Module):
    """Features to inputs of any ``shape`` through ReLU layers of ``widths``; none makes it linear."""

    shape: tuple[int, ...]
    widths: tuple[int, ...] = (256,)

    @nn.compact
    def __call__(self, features: Float[Array, "n dim"]) -> Float[Array, "n *shape"]:
        x = features
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=x.dtype)(x))
        return jnp.reshape(nn.Dense(math.prod(self.shape), dtype=x.dtype)(x), (-1, *self.shape))


def make_decoder(shape: tuple[int, ...]) -> nn.Module:
    """A decoder to inputs of ``shape``: convolutions for images [h, w, c], one hidden layer for anything else."""
    return ImageDecoder(shape) if len(shape) == 3 else MLPDecoder(shape)
