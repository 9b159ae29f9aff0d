"""The layers that encoders are made of: convolutions, norms, image input, pooling."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from metarep_jax.encoders.convolution import PatchConv, conv_layer
from metarep_jax.encoders.norms import Norm

__all__ = ["Norm", "PatchConv", "as_image_float", "conv_layer", "keep_layer", "max_pool"]


def as_image_float(
    x: Shaped[Array, "*shape"], mean: float = 0.0, std: float = 1.0, dtype: Any = jnp.float32
) -> Float[Array, "*shape"]:
    """Images as ``dtype``: integers in 0–255 are scaled to [0, 1], then ``(x − mean) / std``."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.float32) / 255
    if mean != 0.0:
        x = x - mean
    if std != 1.0:
        x = x / std
    return x.astype(dtype)


def keep_layer(module: nn.Module, name: str, output: Callable[[], Any]) -> None:
    """Keeps a layer's output as ``name`` where the collection "intermediates" is asked for; computes nothing else."""
    if module.is_mutable_collection("intermediates"):
        module.sow("intermediates", name, output(), reduce_fn=lambda _, new: new, init_fn=tuple)


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """2×2 max-pooling with stride 2; an odd last row or column is dropped. The first of equal maxima has the gradient.

    By selection and not by ``jnp.max``, whose derivative divides by the number of entries equal to the maximum: none
    is where the compiler recomputes them with another rounding, and the gradient is then not a number.
    """
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
    x = jnp.where(x[..., 0, :] >= x[..., 1, :], x[..., 0, :], x[..., 1, :])
    return jnp.where(x[:, :, 0] >= x[:, :, 1], x[:, :, 0], x[:, :, 1])
