"""The fields and parameters of a convolution layer: those of ``nn.Conv``."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array

from metarep_jax.encoders.convolution.geometry import Padding


class ConvParameters(nn.Module):
    """Base of layers whose names, shapes and initial values of parameters are ``nn.Conv``'s."""

    features: int
    kernel_size: Sequence[int] = (3, 3)
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()

    def promoted(self, x: Array, channels: int) -> tuple[Array, Array, Array | None]:
        """``x``, the kernel [kh, kw, channels, features] and the bias [features], in the layer's number format."""
        shape = (*self.kernel_size, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return x, kernel, bias
