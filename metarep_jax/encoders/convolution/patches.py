"""Convolution as patches × matrix, interchangeable with Flax's own."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from metarep_jax.backend import target_backend
from metarep_jax.encoders.convolution.chunks import map_chunks
from metarep_jax.encoders.convolution.geometry import Geometry, Padding, geometry_of
from metarep_jax.encoders.convolution.parameters import ConvParameters

Rows = Callable[[Array], Array]  # acts on each row (example) of its argument by itself

CHUNK_BYTES = 1 << 20  # of patches at once: a core's second-level cache
LEAST_CHUNKS = 4  # fewer are not worth a loop


class PatchConv(ConvParameters):
    """A 2-D convolution computed as a matrix of patches times the kernel as a matrix.

    Names, shapes and initial values of the parameters are those of ``nn.Conv`` (``kernel`` [kh, kw, in, out], ``bias``
    [out]), and so are its results, up to rounding. On a CPU it is faster, and many times faster where ``vmap`` gives
    each task a kernel of its own, which turns ``lax.conv`` into a grouped convolution but this into a batched matrix
    product.
    """

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n oh ow out"]:
        """The convolution of ``x``."""
        return self._convolve(x, None, False)[0]

    def after(
        self, x: Float[Array, "n ..."], before: Rows | None
    ) -> tuple[Float[Array, "n oh ow _"], Float[Array, "_ out"] | None]:
        """``(y, matrix)``: the convolution of ``before(x)`` is ``y``, or ``y @ matrix`` where there is a matrix.

        ``before`` is computed chunk by chunk together with the patches, and again in the backward pass, so that neither
        its result nor the patches are ever held for the whole batch. A matrix is left to the caller where patches are
        much smaller than the convolution's result (a first layer with few channels).
        """
        return self._convolve(x, before, True)

    @nn.compact
    def _convolve(self, x: Array, before: Rows | None, defer: bool) -> tuple[Array, Array | None]:
        channels = (jax.eval_shape(before, x) if before else x).shape[-1]
        x, kernel, bias = self.promoted(x, channels)

        def patches(rows: Array) -> Array:
            return extract_patches(before(rows) if before else rows, self.kernel_size, self.strides, self.padding)

        matrix = kernel.reshape(-1, self.features)
        if defer and bias is None and 2 * matrix.shape[0] <= self.features:
            return patches(x), matrix
        y = in_chunks(patches, matrix, x)
        return (y if bias is None else y + bias), None


PatchConv.__name__ = "Conv"  # Linen names submodules by this: parameter trees are the same with either lowering


def in_chunks(patches: Rows, matrix: Float[Array, "k out"], x: Float[Array, "n ..."]) -> Float[Array, "n oh ow out"]:
    """``patches(x) @ matrix``; on a CPU a few rows at a time where that keeps the patches in the cache.

    Patches of a whole batch are several times larger than what they are made of, and writing and reading them took
    longer than multiplying them. The backward pass makes them again, also by chunks.
    """
    made = jax.eval_shape(patches, x)
    each = max(CHUNK_BYTES // max(made.size // max(len(x), 1) * made.dtype.itemsize, 1), 1)
    if target_backend() != "cpu" or len(x) < LEAST_CHUNKS * each:
        return times_matrix(patches(x), matrix)
    by_rows = matrix.shape[0] > matrix.shape[1]  # transposed outside the loop, which then sums gradients that way
    factor = matrix.T if by_rows else matrix

    @jax.checkpoint
    def convolve(rows: Array) -> Array:
        return _times(patches(rows), factor, by_rows)

    return map_chunks(convolve, each, x)


def times_matrix(x: Float[Array, "*rows k"], matrix: Float[Array, "k out"]) -> Float[Array, "*rows out"]:
    """``x @ matrix`` as one product of two matrices, laid out so that the gradient's products need no transposition."""
    by_rows = matrix.shape[0] > matrix.shape[1]
    # The barrier keeps XLA from folding the transposition of the gradient back into its product, which on one core then
    # runs at 68 instead of 98 GFLOP/s (245 rows, 576 × 64): 6 of the 12 kernel gradients of a one-step MAML task were.
    return _times(x, lax.optimization_barrier(matrix.T) if by_rows else matrix, by_rows)


def extract_patches(
    x: Float[Array, "n h w c"], size: Sequence[int], strides: int | Sequence[int], padding: Padding
) -> Float[Array, "n oh ow size"]:
    """The kh × kw × c values under each position of the kernel, in the kernel's own order.

    The image is split into one plane for each phase of the strides; windows are then contiguous slices of planes, and
    the gradient adds shifted slices instead of scattering.
    """
    geometry = geometry_of(x.shape[1:3], size, strides, padding)
    out, steps, pads = geometry.out, geometry.strides, geometry.pads
    cells = [n + (k - 1) // step for n, k, step in zip(out, size, steps)]
    after = [step * cell - n - pad[0] for n, step, cell, pad in zip(x.shape[1:3], steps, cells, pads)]
    edges = [(pad[0], end, 0) for pad, end in zip(pads, after)]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    x = x.reshape(x.shape[0], cells[0], steps[0], cells[1], steps[1], x.shape[-1])
    rows = lax.split(x, (1,) * steps[0], axis=2)
    planes = [[part.squeeze((2, 4)) for part in lax.split(row, (1,) * steps[1], axis=4)] for row in rows]

    def window(i: int, j: int) -> Array:
        plane = planes[i % steps[0]][j % steps[1]]
        top, left = i // steps[0], j // steps[1]
        return plane[:, top : top + out[0], left : left + out[1]]

    return jnp.concatenate([window(i, j) for i in range(size[0]) for j in range(size[1])], axis=-1)


def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c o"], geometry: Geometry
) -> Float[Array, "n oh ow o"]:
    """The convolution as one product, which a mapped kernel makes a batch of products."""
    return times_matrix(_patches(x, geometry), kernel.reshape(-1, kernel.shape[-1]))


def input_gradient(
    g: Float[Array, "n oh ow o"], kernel: Float[Array, "kh kw c o"], geometry: Geometry
) -> Float[Array, "n h w c"]:
    """The gradient in the input of the convolution whose result has the gradient ``g``."""
    like = jax.ShapeDtypeStruct((len(g), *geometry.image, kernel.shape[2]), g.dtype)
    to_patches = times_matrix(g, kernel.reshape(-1, kernel.shape[-1]).T)
    return jax.linear_transpose(lambda x: _patches(x, geometry), like)(to_patches)[0]


def kernel_gradient(
    x: Float[Array, "n h w c"], g: Float[Array, "n oh ow o"], geometry: Geometry
) -> Float[Array, "kh kw c o"]:
    """The gradient in the kernel of the convolution whose result has the gradient ``g``."""
    rows = _patches(x, geometry)
    product = rows.reshape(-1, rows.shape[-1]).T @ g.reshape(-1, g.shape[-1])
    return product.reshape(*geometry.size, x.shape[-1], g.shape[-1])


def _patches(x: Array, geometry: Geometry) -> Array:
    return extract_patches(x, geometry.size, geometry.strides, geometry.pads)


def _times(x: Array, factor: Array, by_rows: bool) -> Array:
    rows = x.reshape(-1, x.shape[-1])
    y = lax.dot_general(rows, factor, (((1,), (1 if by_rows else 0,)), ((), ())))
    return y.reshape(*x.shape[:-1], y.shape[-1])
