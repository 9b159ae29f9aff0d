"""Which encoder: by name, with the settings of all of them in one place."""

import dataclasses
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.log_mel import LogMel
from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.resnet import BottleneckBlock, ResNet, ResNet12
from metarep_jax.encoders.sequences import ContextEncoder, PatchFrames
from metarep_jax.encoders.transformer import TextTransformer, VisionTransformer
from metarep_jax.encoders.waveform import WaveformFrames

InputKind = Literal["images", "tokens", "waves"]
KINDS: dict[str, InputKind] = {"transformer": "tokens", "waveform": "waves", "log_mel": "waves"}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and its shape."""

    name: str = "conv4"
    """conv4, resnet12, resnet18, resnet34, resnet50 or mlp; vit (images by a Transformer) or patches (image patches and
    a GRU over them); transformer (text); waveform (audio: convolutions and a GRU over their frames) or log_mel (audio:
    nothing is learned)."""
    width: int = 64
    """Filters of the first block (MLP: units of each of four layers; Transformers: of every vector)."""
    downsample: Literal["stride", "pool"] = "stride"
    """conv4: stride-2 convolutions (as in MAML's code) or 2×2 max-pooling (as in Prototypical Networks)."""
    readout: Literal["flatten", "mean", "cls", "first_last", "moments"] = "flatten"
    """conv4: all positions of the last block as features, or their mean. Transformers: cls takes the first vector, all
    else is the mean (transformer: first_last, that of the embeddings and the last layer together). waveform, patches:
    moments are mean and standard deviation of frames and contexts, all else is the contexts' mean."""
    stem: Literal["small", "imagenet"] = "small"
    """resnet18/34/50: a 3×3 stem for small images, or 7×7 with stride 2 and max-pool."""
    norm: Literal["batch", "group", "layer", "none"] = "batch"
    """Normalisation layers."""
    mean: float = 0.0
    """Subtracted from images in [0, 1]."""
    std: float = 1.0
    """Divides the centred images; mean 0.5 and std 0.5 map images to ±1."""
    conv: Literal["auto", "patches", "lax"] = "auto"
    """How convolutions are lowered; auto: patches × matrix on a CPU and wherever kernels differ per task."""
    depth: int = 4
    """Transformers: blocks."""
    heads: int = 4
    """Transformers: heads of attention, which must divide the width."""
    patch: int = 4
    """vit, patches: pixels a side of a patch."""
    patch_stride: int | None = None
    """patches: pixels from one patch to the next; default: half a patch."""
    vocabulary: int = 8192
    """transformer: token ids are below it; at least data.text.vocabulary. A run takes as many as its tokenizer has."""
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    """waveform: of each convolution; their product is the number of samples from one frame to the next."""
    context: int = 128
    """waveform, patches: units of the GRU."""
    rate: int = 8000
    """Of audio: samples a second of the recordings, which log_mel must know. A run takes that of its data."""

    def __post_init__(self):
        if self.name not in ENCODERS:
            raise ValueError(f"unknown encoder {self.name!r}; there are: {', '.join(sorted(ENCODERS))}")
        for field in ("width", "std", "depth", "heads", "patch", "patch_stride", "vocabulary", "context", "rate"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                raise ValueError(f"EncoderConfig.{field} must be positive, got {value}")


def make_encoder(
    config: EncoderConfig, *, axis_name: str | None = None, dtype: Any = jnp.float32, adapted: bool = False
) -> nn.Module:
    """The module that ``config`` describes.

    Args:
      config: see ``EncoderConfig``.
      axis_name: the mapped axis whose devices share batch statistics, or None.
      dtype: of the computation; parameters and statistics stay float32.
      adapted: whether kernels differ per task (an inner loop adapts them): then ``conv="auto"`` means patches.
    """
    patches = adapted or jax.default_backend() == "cpu"
    conv = ("patches" if patches else "lax") if config.conv == "auto" else config.conv
    return ENCODERS[config.name](config, axis_name=axis_name, dtype=dtype, conv=conv)


def input_kind(config: EncoderConfig) -> InputKind:
    """What the encoder takes (mlp: flat inputs too)."""
    return KINDS.get(config.name, "images")


def input_dtype(config: EncoderConfig) -> Any:
    """The number format that the encoder's inputs have in a pool."""
    return {"tokens": jnp.int32, "waves": jnp.int16}.get(input_kind(config), jnp.uint8)


def check_inputs(config: EncoderConfig, inputs: Array, vocabulary: int = 0) -> None:
    """Raises ValueError when the encoder does not take such ``inputs`` [n, ...]; says which encoders do.

    ``vocabulary``: of the tokenizer that made token ids.
    """
    forms = {(4, "uint8"): "images", (4, "float32"): "images", (2, "int32"): "tokens", (2, "int16"): "waves"}
    found, kind = forms.get((inputs.ndim, str(inputs.dtype))), input_kind(config)
    if found is not None and kind != found:
        fitting = ", ".join(name for name in sorted(ENCODERS) if KINDS.get(name, "images") == found)
        raise ValueError(
            f"the encoder {config.name} takes {kind}, the data are {found}; encoders that take those: {fitting}"
        )
    if kind == "tokens" and vocabulary > config.vocabulary:
        raise ValueError(
            f"the tokenizer has {vocabulary} tokens, the encoder's vocabulary is {config.vocabulary}; give a larger "
            "encoder.vocabulary"
        )


def _conv4(config: EncoderConfig, **how: Any) -> nn.Module:
    return Conv4(
        width=config.width,
        downsample=config.downsample,
        readout=config.readout,
        norm=config.norm,
        mean=config.mean,
        std=config.std,
        **how,
    )


def _resnet12(config: EncoderConfig, **how: Any) -> nn.Module:
    return ResNet12(width=config.width, norm=config.norm, mean=config.mean, std=config.std, **how)


def _resnet(config: EncoderConfig, stages: tuple[int, ...], bottleneck: bool = False, **how: Any) -> nn.Module:
    block = {"block": BottleneckBlock} if bottleneck else {}
    shape = {"width": config.width, "stem": config.stem, "norm": config.norm, "mean": config.mean, "std": config.std}
    return ResNet(stages=stages, **block, **shape, **how)


def _mlp(config: EncoderConfig, *, conv: str, **how: Any) -> nn.Module:
    del conv
    return MLP(widths=(config.width,) * 4, norm=config.norm, mean=config.mean, std=config.std, **how)


def _transformer(config: EncoderConfig, *, dtype: Any, **how: Any) -> nn.Module:
    del how
    readout = _readout(config, "cls", "first_last")
    return TextTransformer(config.vocabulary, **_blocks(config), readout=readout, dtype=dtype)


def _vit(config: EncoderConfig, *, dtype: Any, **how: Any) -> nn.Module:
    del how
    pixels: dict[str, Any] = {"mean": config.mean, "std": config.std}
    return VisionTransformer(config.patch, **_blocks(config), **pixels, readout=_readout(config, "cls"), dtype=dtype)


def _blocks(config: EncoderConfig) -> dict[str, Any]:
    return {"width": config.width, "depth": config.depth, "heads": config.heads}


def _readout(config: EncoderConfig, *known: str) -> str:
    return config.readout if config.readout in known else "mean"


def _waveform(config: EncoderConfig, *, dtype: Any, conv: str, **how: Any) -> nn.Module:
    del how
    frames = WaveformFrames(config.width, config.strides, dtype=dtype, conv=conv)
    return ContextEncoder(frames, config.context, _over_time(config), dtype=dtype)


def _log_mel(config: EncoderConfig, **how: Any) -> nn.Module:
    del how
    return LogMel(config.rate)


def _patches(config: EncoderConfig, *, dtype: Any, **how: Any) -> nn.Module:
    each = _conv4(dataclasses.replace(config, norm="layer", readout="mean"), dtype=dtype, **how)
    frames = PatchFrames(each, config.patch, config.patch_stride or max(config.patch // 2, 1))
    return ContextEncoder(frames, config.context, _over_time(config), dtype=dtype)


def _over_time(config: EncoderConfig) -> str:
    return "moments" if config.readout == "moments" else "context"


ENCODERS = {
    "conv4": _conv4,
    "log_mel": _log_mel,
    "mlp": _mlp,
    "patches": _patches,
    "resnet12": _resnet12,
    "resnet18": partial(_resnet, stages=(2, 2, 2, 2)),
    "resnet34": partial(_resnet, stages=(3, 4, 6, 3)),
    "resnet50": partial(_resnet, stages=(3, 4, 6, 3), bottleneck=True),
    "transformer": _transformer,
    "vit": _vit,
    "waveform": _waveform,
}
