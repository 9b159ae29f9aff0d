"""The convolution layer: parameters of ``nn.Conv``, and a choice of how it is computed."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from metarep_jax.encoders.convolution.bilinear import convolve
from metarep_jax.encoders.convolution.geometry import Padding, geometry_of
from metarep_jax.encoders.convolution.patches import PatchConv


class PassesConv(nn.Module):
    """A 2-D convolution whose three passes are each computed the fastest way for their shape on a CPU.

    3×3 kernels of stride 1 by Winograd's tiles (``winograd``), all else by the direct algorithm (``direct``). Names,
    shapes and initial values of the parameters are those of ``nn.Conv``, and so are its results, up to rounding.
    """

    features: int
    kernel_size: Sequence[int] = (3, 3)
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n oh ow out"]:
        """The convolution of ``x``."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        geometry = geometry_of(x.shape[1:3], self.kernel_size, self.strides, self.padding)
        y = convolve(x, kernel, geometry)
        return y if bias is None else y + bias


PassesConv.__name__ = "Conv"

LOWERINGS = {"passes": PassesConv, "patches": PatchConv, "lax": nn.Conv}


def conv_layer(name: str) -> Callable[..., nn.Module]:
    """The convolution that ``name`` stands for: "passes" (``PassesConv``), "patches" (``PatchConv``) or "lax"
    (``nn.Conv``)."""
    if name not in LOWERINGS:
        raise ValueError(f"unknown convolution {name!r}; there are: {', '.join(LOWERINGS)}")
    return LOWERINGS[name]
