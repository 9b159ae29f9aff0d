"""One convolution as three bilinear maps, each lowered the fastest way for its shape, each the others' derivative.

With y = x ∗ k: the gradient in x is a bilinear map of (ȳ, k), that in k one of (x, ȳ), and their own gradients are the
same three maps again. So they are primitives of JAX whose derivatives, to any order and in both modes, name each other,
while what computes each of them is chosen here; ``experiments/benchmarks/convolution.py`` times every pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from metarep_jax.encoders.convolution import direct, patches, winograd
from metarep_jax.encoders.convolution.chunks import map_chunks
from metarep_jax.encoders.convolution.geometry import Geometry

LEAST_CHANNELS = 16  # of input and result, for Winograd's tiles to pay
# Examples × positions, by the tile's side: fewer do not pay for the kernel's transform. From its bytes and the products
# that it saves, at 8 GB/s and 200 GFLOP/s, not measured.
LEAST_RESULTS = {4: 768, 2: 448}
LARGE_TILES_FROM = 8  # pixels a side: 4×4 images would be one tile, at 36 products for 16 results a large kernel
FEW = 32  # values of a patch: so few are cut out faster than channels that do not fill a vector are convolved
FEW_BYTES = 1 << 20  # of such patches at once


def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c o"], geometry: Geometry
) -> Float[Array, "n oh ow o"]:
    """The convolution of ``x``."""
    return _forward.bind(x, kernel, geometry=geometry)


def tile_of(geometry: Geometry, count: int, channels: int, features: int, dtype: Any) -> int:
    """The side of Winograd's tiles by which ``count`` examples are convolved; 0: by the direct algorithm."""
    if geometry.size != (3, 3) or geometry.strides != (1, 1) or min(channels, features) < LEAST_CHANNELS:
        return 0
    if not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits < 32:
        return 0  # the transforms' rounding would show
    tile = 4 if min(geometry.out) >= LARGE_TILES_FROM else 2
    return tile if count * geometry.out[0] * geometry.out[1] >= LEAST_RESULTS[tile] else 0


class Ways(NamedTuple):
    """How one of the maps is computed of two arrays: ``(a, b, geometry)``, the first of them with examples."""

    tiles: Callable[..., Array]  # takes the tile's side too
    direct: Callable[..., Array]  # one kernel for all examples
    patches: Callable[..., Array]  # one kernel for each entry of a mapped axis
    channels: Callable[[Array, Array], tuple[int, int]]  # of input and result
    shape: Callable[[Any, Any, Geometry], tuple[int, ...]]  # of the result


def _compute(ways: Ways, own: bool, a: Array, b: Array, *, geometry: Geometry) -> Array:
    """The map; ``own`` says whether each entry of a mapped axis has a kernel of its own."""
    if tile := tile_of(geometry, len(a), *ways.channels(a, b), a.dtype):
        return ways.tiles(a, b, geometry, tile)
    return (ways.patches if own else ways.direct)(a, b, geometry)


def _convolve_directly(x: Array, kernel: Array, geometry: Geometry) -> Array:
    values = kernel[..., 0].size
    if values > FEW:
        return direct.convolve(x, kernel, geometry)
    each = FEW_BYTES // (values * geometry.out[0] * geometry.out[1] * x.dtype.itemsize)
    return map_chunks(lambda rows: patches.convolve(rows, kernel, geometry), each, x)


def _input_gradient_by_tiles(g: Array, kernel: Array, geometry: Geometry, tile: int) -> Array:
    return winograd.convolve(g, kernel, direct.turned(geometry), tile, turn=True)


FORWARD = Ways(
    tiles=winograd.convolve,
    direct=_convolve_directly,
    patches=patches.convolve,
    channels=lambda x, kernel: (kernel.shape[2], kernel.shape[3]),
    shape=lambda x, kernel, geometry: (x.shape[0], *geometry.out, kernel.shape[3]),
)
INPUT_GRADIENT = Ways(
    tiles=_input_gradient_by_tiles,
    direct=direct.input_gradient,
    patches=patches.input_gradient,
    channels=lambda g, kernel: (kernel.shape[2], kernel.shape[3]),
    shape=lambda g, kernel, geometry: (g.shape[0], *geometry.image, kernel.shape[2]),
)
KERNEL_GRADIENT = Ways(
    tiles=winograd.kernel_gradient,
    direct=direct.kernel_gradient,
    patches=patches.kernel_gradient,
    channels=lambda x, g: (x.shape[3], g.shape[3]),
    shape=lambda x, g, geometry: (*geometry.size, x.shape[3], g.shape[3]),
)


def _primitive(name: str, ways: Ways) -> Primitive:
    made, compute = Primitive(name), partial(_compute, ways, False)

    def batch(arrays: Any, axes: Any, *, geometry: Geometry) -> tuple[Array, int]:
        (a, b), (of_a, of_b) = arrays, axes
        if ways is not KERNEL_GRADIENT and of_b is None:  # a mapped axis of examples alone joins them
            a = jnp.moveaxis(a, of_a, 0)
            y = made.bind(a.reshape(-1, *a.shape[2:]), b, geometry=geometry)
            return y.reshape(*a.shape[:2], *y.shape[1:]), 0
        return jax.vmap(partial(_compute, ways, True, geometry=geometry), axes)(a, b), 0

    made.def_impl(jax.jit(compute, static_argnames="geometry"))
    made.def_abstract_eval(lambda a, b, *, geometry: ShapedArray(ways.shape(a, b, geometry), a.dtype))
    mlir.register_lowering(made, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[made] = batch
    return made


_forward = _primitive("convolution", FORWARD)
_input_gradient = _primitive("convolution_input_gradient", INPUT_GRADIENT)
_kernel_gradient = _primitive("convolution_kernel_gradient", KERNEL_GRADIENT)

# Of each map (a, b) -> c: what a and what b get from c's cotangent.
ad.defbilinear(
    _forward,
    lambda g, x, kernel, **of: _input_gradient.bind(g, kernel, **of),
    lambda g, x, kernel, **of: _kernel_gradient.bind(x, g, **of),
)
ad.defbilinear(
    _input_gradient,
    lambda x, g, kernel, **of: _forward.bind(x, kernel, **of),
    lambda x, g, kernel, **of: _kernel_gradient.bind(x, g, **of),
)
ad.defbilinear(
    _kernel_gradient,
    lambda kernel, x, g, **of: _input_gradient.bind(g, kernel, **of),
    lambda kernel, x, g, **of: _forward.bind(x, kernel, **of),
)
