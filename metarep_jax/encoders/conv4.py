"""Conv4, the few-shot literature's small network."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from metarep_jax.encoders.layers import (
    ConvLowering,
    Norm,
    PatchConv,
    PerChannel,
    as_image_float,
    conv_layer,
    conv_lowering,
    max_pool,
)
from metarep_jax.encoders.named_layers import keep_layer
from metarep_jax.encoders.norms import NORMS, NormKind
from metarep_jax.encoders.settings import check_choices, check_positive


def conv4(
    *,
    width: int = 64,
    downsample: Literal["stride", "pool"] = "stride",
    readout: Literal["flatten", "mean"] = "flatten",
    norm: NormKind = "batch",
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    conv: ConvLowering = "auto",
    axis_name: str | None = None,
    dtype: Any = jnp.float32,
) -> nn.Module:
    """Conv4, the few-shot literature's small network: images to features.

    Args:
      width: filters of each block.
      downsample: stride-2 convolutions (as in MAML's code) or 2×2 max-pooling (as in Prototypical Networks).
      readout: all positions of the last block as features, or their mean.
      norm: the normalisation layers.
      mean: subtracted from images in [0, 1]; one number, or one a channel.
      std: divides the centred images; mean 0.5 and std 0.5 map images to ±1.
      conv: how convolutions are computed; auto: as patches × matrix on a CPU.
      axis_name: the mapped axis whose devices share batch statistics, or None.
      dtype: of the computation; parameters and statistics stay float32.

    Raises:
      ValueError: for a setting that does not exist or is not positive.
    """
    return Conv4(
        width=width,
        downsample=downsample,
        readout=readout,
        norm=norm,
        mean=mean,
        std=std,
        conv=conv_lowering(conv),
        axis_name=axis_name,
        dtype=dtype,
    )


class Conv4(nn.Module):
    """Four blocks of a 3×3 convolution, a norm and ReLU, each halving the image: images [n, h, w, c] to [n, dim].

    ``downsample`` "stride" gives the convolutions stride 2 (MAML's Omniglot code; 28 pixels become 2); "pool" ends
    each block in a 2×2 max-pool (Vinyals et al. 2016; Prototypical Networks; 28 pixels become 1). ``readout``
    "flatten" keeps all positions of the last block as features, "mean" averages them.
    Images under 16 pixels a side are refused with "pool".
    Source: Finn et al. 2017, https://arxiv.org/abs/1703.03400, section 5.2.
    """

    width: int = 64
    downsample: str = "stride"
    readout: str = "flatten"
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = jnp.float32
    mean: PerChannel = 0.0
    std: PerChannel = 1.0
    conv: str = "patches"
    takes = "images"

    def __post_init__(self) -> None:
        check_positive(self, "width", "std")
        check_choices(self, downsample=("stride", "pool"), readout=("flatten", "mean"), norm=NORMS)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "n h w c"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        if self.downsample == "pool" and min(x.shape[1:3]) < 16:
            raise ValueError(f"Conv4: four max-pools need 16 pixels a side; given {x.shape[1]}×{x.shape[2]}")
        stride = 2 if self.downsample == "stride" else 1
        x = as_image_float(x, self.mean, self.std, self.dtype)
        activate: Callable[[Array], Array] | None = None
        for block in range(4):
            layer = conv_layer(self.conv)
            conv = layer(self.width, (3, 3), strides=(stride, stride), use_bias=self.norm == "none", dtype=self.dtype)
            if isinstance(conv, PatchConv):
                x, matrix = conv.after(x, activate)
            else:
                x, matrix = conv(activate(x) if activate else x), None
            normalise = Norm(self.norm, axis_name=self.axis_name).fitted(x, mask, running, matrix)
            activate = partial(_activate, normalise, self.downsample == "pool")
            keep_layer(self, f"block{block + 1}", partial(activate, x))
        x = activate(x) if activate else x
        return x.reshape(x.shape[0], -1) if self.readout == "flatten" else x.mean((1, 2))


def _activate(normalise: Callable[[Array], Array], pool: bool, rows: Array) -> Array:
    rows = nn.relu(normalise(rows))
    return max_pool(rows) if pool else rows
