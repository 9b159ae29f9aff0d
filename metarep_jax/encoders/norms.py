"""Normalisation layers with one calling convention."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float

NORMS = ("batch", "group", "layer", "none")


class Norm(nn.Module):
    """Normalises, scales and shifts channels (the last axis); called as ``(x, mask, running)``.

    ``kind``:
      batch: by each channel's mean and variance over the rows where ``mask`` is True (all rows without a mask) and
        over positions, of all devices of ``axis_name``; with ``running``, by their running averages. The averages
        (``mean`` and ``var`` in "batch_stats") move where that collection is mutable.
        Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167.
      group: each row by itself, over positions and groups of channels: 32 groups, or the most that divide both 32 and
        the channels. Source: Wu & He 2018, https://arxiv.org/abs/1803.08494.
      layer: group norm with one group.
      none: the input itself, without parameters.

    Statistics are float32 (float64 for float64 input) whatever the input's precision. ``zero_scale`` starts ``scale`` at
    0, which makes a residual branch start as nothing.
    """

    kind: str = "batch"
    axis_name: str | None = None
    zero_scale: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "n *positions c"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n *positions c"]:
        check_norm(self.kind)
        if self.kind == "none":
            return x
        channels = x.shape[-1]
        scale_init = nn.initializers.zeros_init() if self.zero_scale else nn.initializers.ones_init()
        scale = self.param("scale", scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        if self.kind == "batch":
            mean, var = self._batch_statistics(x, mask, running)
            factor = scale * lax.rsqrt(var + self.epsilon)
            return (x * factor + (bias - mean * factor)).astype(x.dtype)
        groups = 1 if self.kind == "layer" else math.gcd(32, channels)
        return (_normalised_groups(x, groups, self.epsilon) * scale + bias).astype(x.dtype)

    def _batch_statistics(self, x: Array, mask: Any, running: bool) -> tuple[Array, Array]:
        channels = x.shape[-1]
        mean_average = self.variable("batch_stats", "mean", lambda: jnp.zeros(channels, jnp.float32))
        var_average = self.variable("batch_stats", "var", lambda: jnp.ones(channels, jnp.float32))
        if running:
            return mean_average.value, var_average.value
        starting = self.is_initializing()
        mean, var = batch_moments(x, mask, None if starting else self.axis_name)
        if not starting and self.is_mutable_collection("batch_stats"):
            for average, value in ((mean_average, mean), (var_average, var)):
                average.value += (1 - self.momentum) * (value - average.value)
        return mean, var


def check_norm(kind: str) -> None:
    """Raises ValueError when there is no norm of that name."""
    if kind not in NORMS:
        raise ValueError(f"unknown norm {kind!r}; there are: {', '.join(NORMS)}")


def batch_moments(
    x: Float[Array, "n *positions c"], mask: Bool[Array, " n"] | None = None, axis_name: str | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and (biased) variance of each channel over the rows where ``mask`` is True and over all positions.

    With ``axis_name``, over the rows of all its devices. No row at all gives mean 0 and variance 0.
    """
    x = x.astype(_statistics_dtype(x))
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    axes = (0, 1)
    if mask is None:
        mean = _over_devices(lax.pmean, flat.mean(axes), axis_name)
        return mean, _over_devices(lax.pmean, jnp.square(flat - mean).mean(axes), axis_name)
    weight = mask.astype(x.dtype)[:, None, None]
    count = _over_devices(lax.psum, weight.sum() * flat.shape[1], axis_name)
    share = weight / jnp.maximum(count, 1)
    mean = _over_devices(lax.psum, (flat * share).sum(axes), axis_name)
    return mean, _over_devices(lax.psum, (jnp.square(flat - mean) * share).sum(axes), axis_name)


def _normalised_groups(x: Array, groups: int, epsilon: float) -> Array:
    parts = x.astype(_statistics_dtype(x)).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean = parts.mean((1, 3), keepdims=True)
    var = jnp.square(parts - mean).mean((1, 3), keepdims=True)
    return ((parts - mean) * lax.rsqrt(var + epsilon)).reshape(x.shape)


def _statistics_dtype(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _over_devices(reduce: Any, value: Array, axis_name: str | None) -> Array:
    return value if axis_name is None else reduce(value, axis_name)
