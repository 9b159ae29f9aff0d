"""A 1-D convolutional encoder of waveforms, as a sequence of frames."""

from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from metarep_jax.encoders.layers import ConvLowering, conv_layer, conv_lowering
from metarep_jax.encoders.sequences import ContextEncoder
from metarep_jax.encoders.settings import check_choices, check_positive
from metarep_jax.types import PAD_SAMPLE


def waveform(
    *,
    width: int = 64,
    strides: tuple[int, ...] = (5, 4, 2, 2, 2),
    context: int = 128,
    readout: Literal["context", "frames", "moments"] = "context",
    rate: int = 8000,
    conv: ConvLowering = "auto",
    dtype: Any = jnp.float32,
) -> nn.Module:
    """Convolutions over recordings and a GRU over their frames.

    Args:
      width: filters of each convolution.
      strides: of each convolution; their product is the number of samples from one frame to the next.
      context: units of the GRU.
      readout: the mean over time of the GRU's states or of the frames; moments: mean and deviation of both.
      rate: samples a second of the recordings that it is for; a run takes that of its data.
      conv: how convolutions are computed; auto: as patches × matrix on a CPU.
      dtype: of the computation; parameters stay float32.

    Raises:
      ValueError: for a setting that does not exist or is not positive.
    """
    frames = WaveformFrames(width=width, strides=tuple(strides), rate=rate, dtype=dtype, conv=conv_lowering(conv))
    return ContextEncoder(frames, context=context, readout=readout, dtype=dtype)


class WaveformFrames(nn.Module):
    """Waveforms [n, t] to frames [n, frames, width]: a stack of strided convolutions, each with a norm and ReLU.

    Samples are 16-bit integers, filled up with −32768 after a recording's end, or floats in [−1, 1]. The default
    strides are CPC's: one frame every 160 samples. Its layers have about two strides' width and no padding at the
    borders, so that a frame sees ``receptive_field(strides)`` samples, here 465, and nothing beyond the recording.

    The norm is over each frame's channels: statistics over time would tell a frame about its future (Rivière et al.
    2020, https://arxiv.org/abs/2002.02848, section 3.1). Source: van den Oord et al. 2018,
    https://arxiv.org/abs/1807.03748, section 3.1.
    """

    width: int = 256
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    norm: str = "layer"
    rate: int = 8000  # samples a second: of no effect, but frames of another rate would mean something else
    dtype: Any = jnp.float32
    conv: str = "patches"
    takes = "waves"

    def __post_init__(self) -> None:
        check_positive(self, "width", "strides", "rate")
        check_choices(self, norm=("layer", "none"))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Shaped[Array, "n t"]) -> tuple[Float[Array, "n frames width"], Bool[Array, "n frames"]]:
        """The frames, and which of them lie within their recording; the first one always counts."""
        field, step = receptive_field(self.strides), hop(self.strides)
        if x.shape[1] < field:
            raise ValueError(f"waveforms of {x.shape[1]} samples are shorter than a frame, which sees {field}")
        count = 1 + (x.shape[1] - field) // step
        length = recorded_samples(x)
        keep = jnp.arange(count) * step + field <= length[:, None]
        keep = keep.at[:, 0].set(True)
        conv = partial(conv_layer(self.conv), self.width, padding="VALID", dtype=self.dtype)
        y = as_wave_float(x, self.dtype)[:, :, None, None]
        for stride in self.strides:
            y = conv((kernel_size(stride), 1), strides=(stride, 1))(y)
            y = nn.relu(nn.LayerNorm(dtype=self.dtype)(y) if self.norm == "layer" else y)
        return y[:, :, 0], keep


def kernel_size(stride: int) -> int:
    """The width of a layer of that stride: 10, 8, 4, 4, 4 for CPC's 5, 4, 2, 2, 2."""
    return max(2 * stride, 4)


def hop(strides: tuple[int, ...]) -> int:
    """Samples from one frame to the next."""
    step = 1
    for stride in strides:
        step *= stride
    return step


def receptive_field(strides: tuple[int, ...]) -> int:
    """Samples that one frame sees.

    Raises:
      ValueError: for strides that are not positive, or none.
    """
    if not strides or min(strides) < 1:
        raise ValueError(f"strides must be positive, at least one, got {strides}")
    field, step = 1, 1
    for stride in strides:
        field += (kernel_size(stride) - 1) * step
        step *= stride
    return field


def recorded_samples(x: Shaped[Array, "n t"]) -> Shaped[Array, " n"]:
    """How many samples of each row are of its recording, not filling."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.full(x.shape[0], x.shape[1])
    return jnp.sum(x != PAD_SAMPLE, axis=1)


def as_wave_float(x: Shaped[Array, "n t"], dtype: Any = jnp.float32) -> Float[Array, "n t"]:
    """Samples in [−1, 1] as ``dtype``; filling is silence."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(dtype)
    return (jnp.where(x == PAD_SAMPLE, 0, x).astype(jnp.float32) / 32768).astype(dtype)
