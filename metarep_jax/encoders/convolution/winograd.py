"""Convolutions of 3×3 kernels with stride 1 by fewer multiplications (Winograd's minimal filtering).

A tile of m×m results needs (m + 2)² products a pair of channels instead of 9 m²: 4 times fewer for m = 4, 2.25 times
for m = 2. Tiles of the input and the kernel are transformed by sums along each axis, multiplied as (m + 2)² products of
matrices, and transformed back. The kernel's gradient takes the same way backwards.

Source: Lavin & Gray 2015, https://arxiv.org/abs/1509.09308, sections 4.1 to 4.3; the transforms are Toom's and Cook's,
computed here from their points. Points near 1 in magnitude keep the rounding small (Barabasz et al. 2018,
https://arxiv.org/abs/1803.10986): 0, ±3/4, ±3/2 are wrong by at most 5e-6 of a standard deviation of the results
where 0, ±1, ±2 are by 2.6e-5, and tiles of m = 2 by 1e-6 (float32, 64 channels, 400 random tiles).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from metarep_jax.encoders.convolution.chunks import map_chunks, sum_chunks
from metarep_jax.encoders.convolution.geometry import Geometry

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}
CACHE_BYTES = 1_200_000  # of transformed input at once
KERNEL = 3


class Transforms(NamedTuple):
    """Lavin & Gray's matrices of F(m, 3), t = m + 2."""

    inputs: Float[np.ndarray, "t t"]  # Bᵀ
    kernel: Float[np.ndarray, "t 3"]  # G
    result: Float[np.ndarray, "m t"]  # Aᵀ


@lru_cache
def transforms(m: int) -> Transforms:
    """Those of tiles of m×m results: polynomials are evaluated at the points, multiplied, and interpolated."""
    points = np.array(POINTS[m])

    def evaluate(degree: int) -> np.ndarray:
        return np.array([point ** np.arange(degree) for point in points] + [np.eye(degree)[-1]])

    others = [np.delete(points, i) for i in range(len(points))]
    kernel = evaluate(KERNEL)
    kernel[:-1] /= np.array([np.prod(point - rest) for point, rest in zip(points, others)])[:, None]
    inputs = np.zeros((m + 2, m + 2))
    for row, roots in zip(inputs, [*others, points]):
        row[: len(roots) + 1] = np.poly(roots)[::-1]
    return Transforms(inputs, kernel, evaluate(m).T)


def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 _ _"], geometry: Geometry, m: int, turn: bool = False
) -> Float[Array, "n oh ow o"]:
    """The convolution, by tiles of m×m results.

    The kernel is [3, 3, c, o]; with ``turn`` [3, 3, o, c], turned by 180° here, as the input's gradient needs it. It is
    not laid out anew for that, which took longer than the products of the small images of a deep layer.
    """
    matrix = transforms(m).kernel
    factors = _along_axes(kernel, matrix[:, ::-1] if turn else matrix)
    factors = lax.optimization_barrier(factors.reshape(-1, *kernel.shape[2:]))
    high, wide = _tiles(geometry, m)

    def each(rows: Array) -> Array:
        dimensions = (((2,), (2 if turn else 1,)), ((0,), (0,)))
        found = lax.dot_general(_of_input(rows, geometry, m), factors, dimensions)
        found = lax.optimization_barrier(found).reshape(m + 2, m + 2, len(rows), high, wide, -1)
        y = _along_axes(found, transforms(m).result)  # [m, m, n, high, wide, o]
        y = y.transpose(2, 3, 0, 4, 1, 5).reshape(len(rows), high * m, wide * m, -1)
        return y[:, : geometry.out[0], : geometry.out[1]]

    return map_chunks(each, max(CACHE_BYTES, factors.nbytes) // _bytes_each(x, geometry, m), x)


def kernel_gradient(
    x: Float[Array, "n h w c"], g: Float[Array, "n oh ow o"], geometry: Geometry, m: int
) -> Float[Array, "3 3 c o"]:
    """The gradient in the kernel of the convolution whose result has the gradient ``g``."""
    high, wide = _tiles(geometry, m)
    spare = [(0, side * m - out) for side, out in zip((high, wide), geometry.out)]
    sums = (m + 2) ** 2 * x.shape[-1] * g.shape[-1] * x.dtype.itemsize  # bytes that each chunk adds to

    def each(rows: Array, gradients: Array) -> Array:
        gradients = jnp.pad(gradients, ((0, 0), *spare, (0, 0))) if any(map(any, spare)) else gradients
        tiles = _of_tiles(gradients, transforms(m).result.T, m, (high, wide))
        return lax.dot_general(_of_input(rows, geometry, m), tiles, (((1,), (1,)), ((0,), (0,))))

    found = sum_chunks(each, max(CACHE_BYTES, sums) // _bytes_each(x, geometry, m), x, g)
    return _along_axes(found.reshape(m + 2, m + 2, *found.shape[1:]), transforms(m).kernel.T)


def _tiles(geometry: Geometry, m: int) -> tuple[int, int]:
    return -(-geometry.out[0] // m), -(-geometry.out[1] // m)


def _bytes_each(x: Array, geometry: Geometry, m: int) -> int:
    high, wide = _tiles(geometry, m)
    return (m + 2) ** 2 * high * wide * x.shape[-1] * x.dtype.itemsize


def _of_input(x: Array, geometry: Geometry, m: int) -> Float[Array, "tt nhw c"]:
    tiles = _tiles(geometry, m)
    edges = [
        (before, count * m + 2 - n - before) for n, count, (before, _) in zip(geometry.image, tiles, geometry.pads)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in edges), (0, 0, 0)))
    return _of_tiles(x, transforms(m).inputs, m, tiles)


def _of_tiles(x: Array, matrix: np.ndarray, m: int, tiles: tuple[int, int]) -> Float[Array, "tt nhw c"]:
    """The transform, along both axes, of tiles that begin every ``m`` pixels and are as large as ``matrix`` is wide."""
    n, _, width, c = x.shape
    (high, wide), t = tiles, matrix.shape[1]
    rows = [lax.slice(x, (0, i, 0, 0), (n, i + (high - 1) * m + 1, width, c), (1, m, 1, 1)) for i in range(t)]
    x = lax.optimization_barrier(jnp.stack(_combine(matrix, rows)))
    shape = (*x.shape[:3], wide, c)
    columns = [
        lax.slice(x, (0, 0, 0, j, 0), (*shape[:3], j + (wide - 1) * m + 1, c), (1, 1, 1, m, 1)) for j in range(t)
    ]
    x = jnp.stack(_combine(matrix, columns), 1)
    return lax.optimization_barrier(x.reshape(-1, n * high * wide, c))


def _along_axes(x: Float[Array, "t t ..."], matrix: np.ndarray) -> Float[Array, "m m ..."]:
    x = lax.optimization_barrier(jnp.stack(_combine(matrix, list(x))))
    return jnp.stack(_combine(matrix, [x[:, i] for i in range(x.shape[1])]), 1)


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """``matrix @ parts`` as plain sums, without the products by 0 and 1."""
    return [_weighted_sum(row, parts) for row in matrix]


def _weighted_sum(weights: np.ndarray, parts: Sequence[Array]) -> Array:
    total = None
    for weight, part in zip(weights, parts):
        if abs(weight) < 1e-12:
            continue
        term = part if abs(weight) == 1 else part * float(abs(weight))
        signed = term if weight > 0 else -term
        total = signed if total is None else total + signed
    assert total is not None
    return total
