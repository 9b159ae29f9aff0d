"""Residual networks: ResNet-18/34/50 with small-image and ImageNet stems, and the few-shot ResNet-12."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from metarep_jax.encoders.layers import (
    ConvLowering,
    Norm,
    PerChannel,
    as_image_float,
    conv_layer,
    conv_lowering,
    max_pool,
    overlapping_max_pool,
)
from metarep_jax.encoders.named_layers import keep_layer
from metarep_jax.encoders.norms import NORMS, NormKind
from metarep_jax.encoders.settings import check_choices, check_positive

Layer = Callable[..., Any]
Stem = Literal["small", "imagenet"]
AROUND: Any = ((1, 1), (1, 1))  # torchvision's padding of strided layers; SAME would pad at one side only


def resnet12(
    *,
    width: int = 64,
    norm: NormKind = "batch",
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    conv: ConvLowering = "auto",
    axis_name: str | None = None,
    dtype: Any = jnp.float32,
) -> nn.Module:
    """ResNet-12, the few-shot literature's larger network: images to features.

    Args:
      width: filters of the first of four blocks; the others have 2.5, 5 and 10 times as many.
      norm: the normalisation layers.
      mean: subtracted from images in [0, 1]; one number, or one a channel.
      std: divides the centred images; mean 0.5 and std 0.5 map images to ±1.
      conv: how convolutions are computed; auto: each of the three passes its fastest way on a CPU.
      axis_name: the mapped axis whose devices share batch statistics, or None.
      dtype: of the computation; parameters and statistics stay float32.

    Raises:
      ValueError: for a setting that does not exist or is not positive.
    """
    return ResNet12(
        width=width,
        norm=norm,
        mean=mean,
        std=std,
        conv=conv_lowering(conv, on_cpu="passes"),
        axis_name=axis_name,
        dtype=dtype,
    )


def _resnet(name: str, stages: tuple[int, ...], block: Callable[[], type[nn.Module]]) -> Callable[..., nn.Module]:
    def resnet(
        *,
        width: int = 64,
        stem: Stem = "small",
        norm: NormKind = "batch",
        mean: PerChannel = 0.0,
        std: PerChannel = 1.0,
        conv: ConvLowering = "auto",
        axis_name: str | None = None,
        dtype: Any = jnp.float32,
    ) -> nn.Module:
        """A residual network: images to 8 · width features (ResNet-50: 32 · width).

        Args:
          width: filters of the first stage; each of the next three has twice as many.
          stem: a 3×3 convolution for small images, or 7×7 with stride 2 and max-pooling, as on ImageNet.
          norm: the normalisation layers.
          mean: subtracted from images in [0, 1]; one number, or one a channel (ImageNet: 0.485 0.456 0.406).
          std: divides the centred images; one number, or one a channel (ImageNet: 0.229 0.224 0.225).
          conv: how convolutions are computed; auto: each of the three passes its fastest way on a CPU.
          axis_name: the mapped axis whose devices share batch statistics, or None.
          dtype: of the computation; parameters and statistics stay float32.

        Raises:
          ValueError: for a setting that does not exist or is not positive.
        """
        return ResNet(
            stages=stages,
            block=block(),
            width=width,
            stem=stem,
            norm=norm,
            mean=mean,
            std=std,
            conv=conv_lowering(conv, on_cpu="passes"),
            axis_name=axis_name,
            dtype=dtype,
        )

    resnet.__name__ = resnet.__qualname__ = name
    return resnet


resnet18 = _resnet("resnet18", (2, 2, 2, 2), lambda: BasicBlock)
resnet34 = _resnet("resnet34", (3, 4, 6, 3), lambda: BasicBlock)
resnet50 = _resnet("resnet50", (3, 4, 6, 3), lambda: BottleneckBlock)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2015, figure 5 left)."""

    width: int
    stride: int
    conv: Layer
    norm: Layer
    expansion = 1

    @nn.compact
    def __call__(self, x: Array, mask: Any, running: bool) -> Array:
        y = self.conv(self.width, (3, 3), strides=(self.stride, self.stride), padding=AROUND)(x)
        y = nn.relu(self.norm()(y, mask, running))
        y = self.conv(self.width, (3, 3))(y)
        y = self.norm(zero_scale=True)(y, mask, running)
        return nn.relu(y + _shortcut(self, x, y, mask, running))


class BottleneckBlock(nn.Module):
    """1×1, 3×3, 1×1 convolutions; the stride sits on the 3×3 (the "v1.5" that reaches the published accuracy)."""

    width: int
    stride: int
    conv: Layer
    norm: Layer
    expansion = 4

    @nn.compact
    def __call__(self, x: Array, mask: Any, running: bool) -> Array:
        y = nn.relu(self.norm()(self.conv(self.width, (1, 1))(x), mask, running))
        y = self.conv(self.width, (3, 3), strides=(self.stride, self.stride), padding=AROUND)(y)
        y = nn.relu(self.norm()(y, mask, running))
        y = self.norm(zero_scale=True)(self.conv(4 * self.width, (1, 1))(y), mask, running)
        return nn.relu(y + _shortcut(self, x, y, mask, running))


class ResNet(nn.Module):
    """A residual network without its classifier: images [n, h, w, c] to pooled features [n, dim].

    ``stem`` "small" is one 3×3 convolution (32-pixel images, as in SimCLR's CIFAR-10 appendix B.9); "imagenet" is
    7×7 with stride 2 and a 3×3 max-pool. Strided layers are padded on both sides, as torchvision's are, whose weights
    ``read_pretrained`` reads. Source: He et al. 2015, https://arxiv.org/abs/1512.03385, table 1.
    """

    stages: tuple[int, ...] = (2, 2, 2, 2)
    block: Any = BasicBlock
    width: int = 64
    stem: str = "small"
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = jnp.float32
    mean: PerChannel = 0.0
    std: PerChannel = 1.0
    conv: str = "lax"
    takes = "images"

    def __post_init__(self) -> None:
        check_positive(self, "width", "std")
        check_choices(self, stem=("small", "imagenet"), norm=NORMS)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "n h w c"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        x = as_image_float(x, self.mean, self.std, self.dtype)
        conv = partial(conv_layer(self.conv), use_bias=False, dtype=self.dtype)
        norm = partial(Norm, self.norm, axis_name=self.axis_name)
        if self.stem == "imagenet":
            x = conv(self.width, (7, 7), strides=(2, 2), padding=((3, 3), (3, 3)))(x)
            x = nn.relu(norm()(x, mask, running))
            x = overlapping_max_pool(x)
        else:
            x = nn.relu(norm()(conv(self.width, (3, 3))(x), mask, running))
        keep_layer(self, "stem", lambda x=x: x)
        for stage, blocks in enumerate(self.stages):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                x = self.block(self.width * 2**stage, stride, conv, norm)(x, mask, running)
            keep_layer(self, f"stage{stage + 1}", lambda x=x: x)
        return x.mean((1, 2))


class ResNet12(nn.Module):
    """The few-shot ResNet-12: four blocks of three 3×3 convolutions, each block ending in a 2×2 max-pool.

    Widths are multiples (1, 2.5, 5, 10) of ``width`` = 64: 64-160-320-640. Leaky ReLU 0.1. Without DropBlock.
    Source: Lee et al. 2019 (MetaOptNet), https://arxiv.org/abs/1904.03758, section 4.1.
    """

    width: int = 64
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = jnp.float32
    mean: PerChannel = 0.0
    std: PerChannel = 1.0
    conv: str = "lax"
    takes = "images"

    def __post_init__(self) -> None:
        check_positive(self, "width", "std")
        check_choices(self, norm=NORMS)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "n h w c"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        x = as_image_float(x, self.mean, self.std, self.dtype)
        conv = partial(conv_layer(self.conv), use_bias=False, dtype=self.dtype)
        norm = partial(Norm, self.norm, axis_name=self.axis_name)
        for block, multiple in enumerate((1, 2.5, 5, 10)):
            width = int(self.width * multiple)
            y = x
            for layer in range(3):
                y = norm()(conv(width, (3, 3))(y), mask, running)
                y = nn.leaky_relu(y, 0.1) if layer < 2 else y
            shortcut = norm()(conv(width, (1, 1))(x), mask, running)
            x = max_pool(nn.leaky_relu(y + shortcut, 0.1))
            keep_layer(self, f"block{block + 1}", lambda x=x: x)
        return x.mean((1, 2))


def _shortcut(block: Any, x: Array, y: Array, mask: Any, running: bool) -> Array:
    if x.shape == y.shape:
        return x
    x = block.conv(y.shape[-1], (1, 1), strides=(block.stride, block.stride), name="shortcut")(x)
    return block.norm(name="shortcut_norm")(x, mask, running)
