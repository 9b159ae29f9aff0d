"""Encoders of sequences of frames: what each frame holds, and what a recurrent network makes of those before it."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.layers import ConvLowering, PerChannel, as_image_float, conv_lowering
from metarep_jax.encoders.named_layers import keep_layer
from metarep_jax.encoders.settings import check_choices, check_positive
from metarep_jax.encoders.transformer import read_out

Sequences = tuple[Float[Array, "n l dim"], Float[Array, "n l context"], Bool[Array, "n l"]]


def patches(
    *,
    patch: int = 4,
    patch_stride: int | None = None,
    width: int = 64,
    downsample: Literal["stride", "pool"] = "stride",
    context: int = 128,
    readout: Literal["context", "frames", "moments"] = "context",
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    conv: ConvLowering = "auto",
    dtype: Any = jnp.float32,
) -> nn.Module:
    """A Conv4 over each of an image's patches, and a GRU over their features.

    Args:
      patch: pixels a side of a patch.
      patch_stride: pixels from one patch to the next; none: half a patch.
      width: filters of each of Conv4's blocks.
      downsample: Conv4's stride-2 convolutions or 2×2 max-pooling.
      context: units of the GRU.
      readout: the mean over patches of the GRU's states or of the patches' features; moments: mean and deviation of
        both.
      mean: subtracted from images in [0, 1]; one number, or one a channel.
      std: divides the centred images; mean 0.5 and std 0.5 map images to ±1.
      conv: how convolutions are computed; auto: as patches × matrix on a CPU.
      dtype: of the computation; parameters stay float32.

    Raises:
      ValueError: for a setting that does not exist or is not positive.
    """
    each = Conv4(
        width=width,
        downsample=downsample,
        readout="mean",
        norm="layer",
        mean=mean,
        std=std,
        conv=conv_lowering(conv),
        dtype=dtype,
    )
    stride = max(patch // 2, 1) if patch_stride is None else patch_stride
    return ContextEncoder(PatchFrames(each, patch=patch, stride=stride), context=context, readout=readout, dtype=dtype)


class ContextEncoder(nn.Module):
    """A module of frames and a GRU that runs over them: inputs [n, ...] to features [n, dim].

    ``frames`` maps inputs to ``(frames [n, l, dim], which of them count [n, l])``. ``readout``: the mean over the
    counting frames of the GRU's states ("context", [n, context]) or of the frames themselves ("frames", [n, dim]), or
    mean and standard deviation over them of both ("moments", [n, 2 · (dim + context)]). Both parts are pretrained by
    ``pretrain.cpc`` and handed on together. Source: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748,
    figure 1.
    """

    frames: nn.Module
    context: int = 256
    readout: str = "context"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_positive(self, "context")
        check_choices(self, readout=("context", "frames", "moments"))
        super().__post_init__()

    @property
    def takes(self) -> str:
        """What it encodes: whatever its frames are of."""
        return getattr(self.frames, "takes", "images")

    def setup(self) -> None:
        self.gru = nn.RNN(nn.GRUCell(self.context, dtype=self.dtype))

    def __call__(
        self, x: Shaped[Array, "n ..."], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        del mask, running
        frames, contexts, keep = self.sequence(x)
        if self.readout == "moments":
            return moments(jnp.concatenate([frames, contexts], axis=-1), keep)
        return read_out(contexts if self.readout == "context" else frames, keep, "mean")

    def sequence(self, x: Shaped[Array, "n ..."]) -> Sequences:
        """Frames, the GRU's state after each, and which of them count."""
        frames, keep = self.frames(x)
        contexts: Any = self.gru(frames)
        keep_layer(self, "frames", lambda: frames)
        keep_layer(self, "contexts", lambda: contexts)
        return frames, contexts, keep


class PatchFrames(nn.Module):
    """Images [n, h, w, c] as sequences: overlapping squares, row by row, each encoded by itself.

    With ``columns = grid_size(w, patch, stride)``, the square ``k`` rows below another one comes ``k * columns`` places
    later. ``encoder`` maps squares [m, patch, patch, c] to [m, dim] and must not mix them (no batch norm).
    Source: van den Oord et al. 2018, section 3.2: squares of 64 pixels, half of them shared with the next.
    """

    encoder: nn.Module
    patch: int = 8
    stride: int = 4
    takes = "images"

    def __post_init__(self) -> None:
        check_positive(self, "patch", "stride")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Shaped[Array, "n h w c"]) -> tuple[Float[Array, "n l dim"], Bool[Array, "n l"]]:
        n, h, w, c = x.shape
        if not 1 <= self.stride <= self.patch <= min(h, w):
            raise ValueError(
                f"squares of {self.patch} pixels by steps of {self.stride} do not fit images of {h}×{w} pixels"
            )
        x = as_image_float(x)
        rows, columns = grid_size(h, self.patch, self.stride), grid_size(w, self.patch, self.stride)
        inside = jnp.arange(self.patch)
        down = (jnp.arange(rows) * self.stride)[:, None] + inside
        across = (jnp.arange(columns) * self.stride)[:, None] + inside
        squares = x[:, down[:, None, :, None], across[None, :, None, :]]  # [n, rows, columns, patch, patch, c]
        found = self.encoder(squares.reshape(-1, self.patch, self.patch, c))
        return found.reshape(n, rows * columns, -1), jnp.ones((n, rows * columns), bool)


def moments(states: Float[Array, "n l dim"], keep: Bool[Array, "n l"]) -> Float[Array, "n both"]:
    """Mean and standard deviation, [n, 2 · dim], of the vectors that ``keep`` marks; where they are all alike, the
    gradient of the deviation is 0."""
    mean = read_out(states, keep, "mean")
    variance = read_out(jnp.square(states - mean[:, None]), keep, "mean")
    spread = jnp.where(variance > 0, variance, 1)  # the root has no gradient at 0
    return jnp.concatenate([mean, jnp.where(variance > 0, jnp.sqrt(spread), 0)], axis=-1)


def grid_size(side: int, patch: int, stride: int) -> int:
    """Squares along one side of an image."""
    return 1 + (side - patch) // stride
