"""Encoder settings as they were before each factory had its own: one dataclass for all encoders."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from metarep_jax.encoders.registry import ENCODERS


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and its shape; each encoder takes those fields that its factory has."""

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
    fields = dataclasses.asdict(config)
    factory, keywords = ENCODERS[config.name], encoder_keywords(fields)
    supplied = {
        "conv": "patches" if adapted and config.conv == "auto" else config.conv,
        "axis_name": axis_name,
        "dtype": dtype,
    }
    return factory(**keywords, **{name: value for name, value in supplied.items() if name in _keywords(config.name)})


def encoder_keywords(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of the factory ``fields["name"]`` that mean what these fields of an ``EncoderConfig`` meant.

    What the encoder does not have is left out, as it was of no effect: other encoders' fields, and readouts that meant
    the encoder's default.

    Args:
      fields: some or all fields by name, as in the ``spec.json`` of older models.
    """
    name = fields["name"]
    has = _keywords(name) - {"conv", "axis_name", "dtype"} - ({"depth"} if name == "mlp" else set())
    keywords = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items() if key in has}
    if name != "conv4" and keywords.get("readout") not in READOUTS.get(name, ()):
        keywords.pop("readout", None)
    return keywords


READOUTS = {  # other than an encoder's default, which any other word meant
    "transformer": ("cls", "first_last"),
    "vit": ("cls",),
    "waveform": ("moments",),
    "patches": ("moments",),
}


def _keywords(name: str) -> set[str]:
    return set(inspect.signature(ENCODERS[name]).parameters)
