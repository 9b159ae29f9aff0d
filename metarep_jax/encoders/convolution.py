"""Convolution as patches × matrix, interchangeable with Flax's own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float


class PatchConv(nn.Module):
    """A 2-D convolution computed as a matrix of patches times the kernel as a matrix.

    Names, shapes and initial values of the parameters are those of ``nn.Conv`` (``kernel`` [kh, kw, in, out], ``bias``
    [out]), and so are its results, up to rounding. On a CPU it is faster, and many times faster where ``vmap`` gives
    each task a kernel of its own, which turns ``lax.conv`` into a grouped convolution but this into a batched matrix
    product.
    """

    features: int
    kernel_size: Sequence[int] = (3, 3)
    strides: int | Sequence[int] = 1
    padding: str | int | Sequence[Any] = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n oh ow out"]:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = patch_conv(x, kernel, self.strides, self.padding)
        return y if bias is None else y + bias


PatchConv.__name__ = "Conv"  # Linen names submodules by this: parameter trees are the same with either lowering


def conv_layer(name: str) -> Callable[..., nn.Module]:
    """The convolution that ``name`` stands for: "patches" (``PatchConv``) or "lax" (``nn.Conv``)."""
    layers = {"patches": PatchConv, "lax": nn.Conv}
    if name not in layers:
        raise ValueError(f"unknown convolution {name!r}; there are: {', '.join(layers)}")
    return layers[name]


def patch_conv(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c out"],
    strides: int | Sequence[int] = 1,
    padding: str | int | Sequence[Any] = "SAME",
) -> Float[Array, "n oh ow out"]:
    """The convolution of ``x`` with ``kernel`` (in deep learning's sense: a correlation), as one matrix product."""
    patches = extract_patches(x, kernel.shape[:2], strides, padding)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def extract_patches(
    x: Float[Array, "n h w c"], size: Sequence[int], strides: int | Sequence[int], padding: str | int | Sequence[Any]
) -> Float[Array, "n oh ow size"]:
    """The kh × kw × c values under each position of the kernel, in the kernel's own order."""
    steps = (strides, strides) if isinstance(strides, int) else tuple(strides)
    pads = pad_amounts(x.shape[1:3], size, steps, padding)
    out = [(n + sum(pad) - k) // step + 1 for n, k, step, pad in zip(x.shape[1:3], size, steps, pads)]
    if min(out) < 1:
        raise ValueError(f"a {size[0]}×{size[1]} kernel with padding {padding} does not fit into images {x.shape[1:3]}")
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    window = partial(_window, x, steps=steps, out=out)
    return jnp.concatenate([window((i, j)) for i in range(size[0]) for j in range(size[1])], axis=-1)


def pad_amounts(
    image: Sequence[int], size: Sequence[int], strides: Sequence[int], padding: str | int | Sequence[Any]
) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each of two axes; ``padding`` as in ``nn.Conv``: SAME, VALID, a number, or pairs."""
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(image, size, strides, padding)
    else:
        each = (padding, padding) if isinstance(padding, int) else tuple(padding)
        pads = [(pad, pad) if isinstance(pad, int) else pad for pad in each]
    return tuple((int(before), int(after)) for before, after in pads)


def _window(x: Array, start: tuple[int, int], *, steps: Sequence[int], out: Sequence[int]) -> Array:
    limits = [i + step * (n - 1) + 1 for i, step, n in zip(start, steps, out)]
    return lax.slice(x, (0, *start, 0), (x.shape[0], *limits, x.shape[3]), (1, *steps, 1))
