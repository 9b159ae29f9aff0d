"""Normalisation layers with one calling convention."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float

from metarep_jax.encoders.convolution import times_matrix

NormKind = Literal["batch", "group", "layer", "none"]
NORMS: tuple[str, ...] = get_args(NormKind)


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

    Statistics are float32 (float64 for float64 input) whatever the input's precision. ``zero_scale`` starts ``scale``
    at 0, which makes a residual branch start as nothing.
    """

    kind: str = "batch"
    axis_name: str | None = None
    zero_scale: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5

    def __call__(
        self, x: Float[Array, "n *positions c"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n *positions c"]:
        """``x`` normalised."""
        return self.fitted(x, mask, running)(x)

    @nn.compact
    def fitted(
        self,
        x: Float[Array, "n *positions k"],
        mask: Bool[Array, " n"] | None = None,
        running: bool = False,
        matrix: Float[Array, "k c"] | None = None,
    ) -> Callable[[Array], Array]:
        """The normalisation of ``x`` (or of ``x @ matrix``) as a function that acts on each row by itself.

        Batch statistics of ``x @ matrix`` are computed from the mean and the covariance of ``x``, without a pass over
        the product, and its normalisation is part of the matrix.
        """
        check_norm(self.kind)
        if self.kind == "none":
            return _times(matrix)
        channels = x.shape[-1] if matrix is None else matrix.shape[-1]
        scale_init = nn.initializers.zeros_init() if self.zero_scale else nn.initializers.ones_init()
        scale = self.param("scale", scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        if self.kind == "batch":
            mean, var = self._batch_statistics(x, mask, running, matrix, channels)
            factor = scale * lax.rsqrt(var + self.epsilon)
            shift = bias - mean * factor
            if matrix is None:
                return lambda rows: (rows * factor + shift).astype(rows.dtype)
            folded = (matrix * factor).astype(matrix.dtype)
            return lambda rows: (times_matrix(rows, folded) + shift).astype(rows.dtype)
        groups = 1 if self.kind == "layer" else math.gcd(32, channels)

        def normalise(rows: Array) -> Array:
            product = _times(matrix)(rows)
            return (_normalised_groups(product, groups, self.epsilon) * scale + bias).astype(product.dtype)

        return normalise

    def _batch_statistics(self, x: Array, mask: Any, running: bool, matrix: Any, channels: int) -> tuple[Array, Array]:
        mean_average = self.variable("batch_stats", "mean", lambda: jnp.zeros(channels, jnp.float32))
        var_average = self.variable("batch_stats", "var", lambda: jnp.ones(channels, jnp.float32))
        if running:
            return mean_average.value, var_average.value
        starting = self.is_initializing()
        axis_name = None if starting else self.axis_name
        if matrix is None:
            mean, var = batch_moments(x, mask, axis_name)
        else:
            mean, var = product_moments(x, matrix, mask, axis_name)
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
    flat, share, _ = _weighted(x, mask, None)
    if mask is None:  # without the weights, which a CPU would write out in full
        count = max(flat.shape[0] * flat.shape[1], 1)
        mean = flat.sum((0, 1)) / count
        var = jnp.square(flat - mean).sum((0, 1)) / count
    else:
        mean = (flat * share).sum((0, 1))
        var = (jnp.square(flat - mean) * share).sum((0, 1))
    if axis_name is None:
        return mean, var
    # One meeting of the devices instead of two: each tells its own moments, and all combine them (Chan et al. 1979).
    count = jnp.full(1, flat.shape[0] if mask is None else mask.sum(), flat.dtype)
    told = lax.all_gather(jnp.concatenate([mean, var, count]), axis_name)
    means, variances, counts = jnp.split(told, [mean.size, 2 * mean.size], axis=1)
    weight = counts / jnp.maximum(counts.sum(), 1)
    mean = (weight * means).sum(0)
    return mean, (weight * (variances + jnp.square(means - mean))).sum(0)


def product_moments(
    x: Float[Array, "n *positions k"],
    matrix: Float[Array, "k c"],
    mask: Bool[Array, " n"] | None = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """``batch_moments(x @ matrix)`` by mean Wᵀ E[x] and variance diag(Wᵀ Cov(x) W)."""
    flat, share, reduce = _weighted(x, mask, axis_name)
    matrix = matrix.astype(flat.dtype)
    mean = reduce((flat * share).sum((0, 1)))
    centred = (flat - mean).reshape(-1, flat.shape[-1])
    weights = jnp.broadcast_to(share, (*flat.shape[:2], 1)).reshape(-1, 1)
    exact = partial(jnp.matmul, precision=lax.Precision.HIGHEST)  # else rounded to bfloat16 on a TPU, then subtracted
    covariance = reduce(exact(centred.T, centred * weights))
    return exact(mean, matrix), jnp.maximum((exact(covariance, matrix) * matrix).sum(0), 0)


def _normalised_groups(x: Array, groups: int, epsilon: float) -> Array:
    parts = x.astype(_statistics_dtype(x)).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean = parts.mean((1, 3), keepdims=True)
    var = jnp.square(parts - mean).mean((1, 3), keepdims=True)
    return ((parts - mean) * lax.rsqrt(var + epsilon)).reshape(x.shape)


def _statistics_dtype(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _weighted(x: Array, mask: Any, axis_name: str | None) -> tuple[Array, Array, Callable[[Array], Array]]:
    """``x`` as [n, positions, c], each entry's share [n or 1, 1, 1] of a mean, and the sum over devices."""

    def reduce(value: Array) -> Array:
        return value if axis_name is None else lax.psum(value, axis_name)

    flat = x.astype(_statistics_dtype(x)).reshape(x.shape[0], -1, x.shape[-1])
    if mask is None:
        count = flat.shape[0] * flat.shape[1] * (1 if axis_name is None else lax.axis_size(axis_name))
        return flat, jnp.full((1, 1, 1), 1 / max(count, 1), flat.dtype), reduce
    weight = mask.astype(flat.dtype)[:, None, None]
    return flat, weight / jnp.maximum(reduce(weight.sum() * flat.shape[1]), 1), reduce


def _times(matrix: Array | None) -> Callable[[Array], Array]:
    return (lambda rows: rows) if matrix is None else (lambda rows: times_matrix(rows, matrix))
