"""A convolution's three passes by the direct algorithm, each in the form that XLA runs fastest on a CPU."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from metarep_jax.encoders.convolution.chunks import sum_chunks
from metarep_jax.encoders.convolution.geometry import Geometry, Pair

NHWC = ("NHWC", "HWIO", "NHWC")
CACHE_BYTES = 2_000_000  # of shifted columns and gradients at once


def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c o"], geometry: Geometry
) -> Float[Array, "n oh ow o"]:
    """The convolution."""
    return lax.conv_general_dilated(x, kernel, geometry.strides, geometry.pads, dimension_numbers=NHWC)


def input_gradient(
    g: Float[Array, "n oh ow o"], kernel: Float[Array, "kh kw c o"], geometry: Geometry
) -> Float[Array, "n h w c"]:
    """The gradient in the input of the convolution whose result has the gradient ``g``.

    A forward convolution of ``g`` with the kernel turned around; with strides one for each phase of the input's pixels,
    by the taps that reach it, since a convolution of ``g`` with zeros between multiplies by those too.
    """
    phases = [
        [_phase(g, kernel, geometry, (top, left)) for left in range(geometry.strides[1])]
        for top in range(geometry.strides[0])
    ]
    if geometry.strides == (1, 1):
        return phases[0][0]
    x = jnp.stack([jnp.stack(row, 3) for row in phases], 2)  # [n, h/s, s, w/s, s, c]
    n, high, down, wide, along, c = x.shape
    return x.reshape(n, high * down, wide * along, c)[:, : geometry.image[0], : geometry.image[1]]


def kernel_gradient(
    x: Float[Array, "n h w c"], g: Float[Array, "n oh ow o"], geometry: Geometry
) -> Float[Array, "kh kw c o"]:
    """The gradient in the kernel of the convolution whose result has the gradient ``g``.

    For each row of the kernel one product of ``g`` with the input's columns, of which as many shifted copies lie side
    by side as the kernel is wide.
    """
    (high, wide), (kh, kw), (down, along) = geometry.out, geometry.size, geometry.strides
    (c, o), edges = (x.shape[-1], g.shape[-1]), [(*pad, 0) for pad in geometry.pads]

    def each(rows: Array, gradients: Array) -> Array:
        n = len(rows)
        factor = lax.optimization_barrier(gradients.reshape(-1, o).T)
        rows = lax.pad(rows, jnp.zeros((), rows.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
        shifts = [
            lax.slice(rows, (0, 0, j, 0), (n, rows.shape[1], j + (wide - 1) * along + 1, c), (1, 1, along, 1))
            for j in range(kw)
        ]
        columns = jnp.concatenate(shifts, -1)
        lines = [
            lax.slice(columns, (0, i, 0, 0), (n, i + (high - 1) * down + 1, wide, kw * c), (1, down, 1, 1))
            for i in range(kh)
        ]
        return jnp.concatenate([factor @ line.reshape(-1, kw * c) for line in lines], 1)  # [o, kh kw c]

    each_bytes = wide * ((geometry.image[0] + sum(geometry.pads[0])) * kw * c + high * o) * x.dtype.itemsize
    return sum_chunks(each, CACHE_BYTES // each_bytes, x, g).T.reshape(kh, kw, c, o)


def turned(geometry: Geometry) -> Geometry:
    """The convolution, by the kernel turned around, that takes gradients of results to those of inputs (stride 1)."""
    pads = [(size - 1 - before, size - 1 - after) for size, (before, after) in zip(geometry.size, geometry.pads)]
    return Geometry(geometry.out, geometry.size, (1, 1), (pads[0], pads[1]))


def _phase(g: Array, kernel: Array, geometry: Geometry, start: Pair) -> Array:
    """The gradient of every pixel that is reached like ``start``: [n, h/s, w/s, c]."""
    taps, pads, sides = [], [], []
    for place, image, size, step, pad, out in zip(
        start, geometry.image, geometry.size, geometry.strides, geometry.pads, geometry.out
    ):
        # Pixel step·a + place lies under tap t of the result (step·a + place + pad − t) / step, where that is whole.
        own = [t for t in range(size) if (place + pad[0] - t) % step == 0][::-1]
        side = -(-image // step)
        if own:
            offsets = [(place + pad[0] - t) // step for t in own]  # ascending
            pads.append((-offsets[0], side + offsets[-1] - out))
        taps.append(own)
        sides.append(side)
    if not all(taps):
        return jnp.zeros((len(g), *sides, kernel.shape[2]), g.dtype)
    kernel = kernel[taps[0][-1] : taps[0][0] + 1 : geometry.strides[0]]
    kernel = kernel[:, taps[1][-1] : taps[1][0] + 1 : geometry.strides[1]]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(g, turned, (1, 1), pads, dimension_numbers=NHWC)
