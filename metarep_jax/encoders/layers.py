"""The layers that encoders are made of: convolutions, norms, image input, pooling."""

from typing import Any, Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from metarep_jax.backend import target_backend
from metarep_jax.encoders.convolution import PatchConv, conv_layer
from metarep_jax.encoders.norms import Norm

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ConvLowering",
    "Norm",
    "PatchConv",
    "PerChannel",
    "as_image_float",
    "conv_layer",
    "conv_lowering",
    "max_pool",
    "overlapping_max_pool",
]

PerChannel = float | tuple[float, ...]  # one number for all channels of an image, or one a channel
ConvLowering = Literal["auto", "passes", "patches", "lax"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue in [0, 1], as torchvision's models take them
IMAGENET_STD = (0.229, 0.224, 0.225)


def conv_lowering(conv: ConvLowering, on_cpu: ConvLowering = "patches") -> str:
    """How convolutions are computed: as ``conv`` says; "auto" means ``on_cpu`` on a CPU and "lax" elsewhere.

    On a CPU small networks are fastest by "patches", where the norm and the activation before a convolution are part of
    it; large ones by "passes".
    """
    return (on_cpu if target_backend() == "cpu" else "lax") if conv == "auto" else conv


def as_image_float(
    x: Shaped[Array, "*shape"], mean: PerChannel = 0.0, std: PerChannel = 1.0, dtype: Any = jnp.float32
) -> Float[Array, "*shape"]:
    """Images as ``dtype``: integers in 0–255 are scaled to [0, 1], then ``(x − mean) / std``.

    Raises:
      ValueError: when ``mean`` or ``std`` has one number a channel and the images have another number of channels.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.float32) / 255
    if mean != 0.0:
        x = x - _per_channel("mean", mean, x)
    if std != 1.0:
        x = x / _per_channel("std", std, x)
    return x.astype(dtype)


def _per_channel(name: str, value: PerChannel, x: Array) -> Any:
    if not isinstance(value, tuple):
        return value
    if len(value) != x.shape[-1]:
        raise ValueError(f"{name} has {len(value)} numbers, the images have {x.shape[-1]} channels")
    return jnp.asarray(value, x.dtype)


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """2×2 max-pooling with stride 2; an odd last row or column is dropped. The first of equal maxima has the gradient.

    By selection and not by ``jnp.max``, whose derivative divides by the number of entries equal to the maximum: none
    is where the compiler recomputes them with another rounding, and the gradient is then not a number.
    """
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
    x = jnp.where(x[..., 0, :] >= x[..., 1, :], x[..., 0, :], x[..., 1, :])
    return jnp.where(x[:, :, 0] >= x[:, :, 1], x[:, :, 0], x[:, :, 1])


def overlapping_max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """3×3 max-pooling with stride 2, padded by one on each side. The first of equal maxima has the gradient.

    By selection among shifted copies, one axis after the other: the gradient of ``nn.max_pool`` is a search of every
    window, which took a third of a step of ResNet-18 at 224 pixels on a CPU.
    """
    for axis in (1, 2):
        out = (x.shape[axis] - 1) // 2 + 1
        edges = [(0, 0, 0)] * x.ndim
        edges[axis] = (1, 2 * out - x.shape[axis], 0)
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
        first, middle, last = (lax.slice_in_dim(x, i, i + 2 * out - 1, 2, axis) for i in range(3))
        x = jnp.where(first >= middle, first, middle)
        x = jnp.where(x >= last, x, last)
    return x
