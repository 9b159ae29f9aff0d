"""The encoders by name, what each takes, and whether data fit."""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.choices import Choice
from metarep_jax.encoders.conv4 import conv4
from metarep_jax.encoders.log_mel import log_mel
from metarep_jax.encoders.mlp import mlp
from metarep_jax.encoders.resnet import resnet12, resnet18, resnet34, resnet50
from metarep_jax.encoders.sequences import patches
from metarep_jax.encoders.transformer import transformer
from metarep_jax.encoders.vision_transformer import vit
from metarep_jax.encoders.waveform import waveform

InputKind = Literal["images", "tokens", "waves"]

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "conv4": conv4,
    "log_mel": log_mel,
    "mlp": mlp,
    "patches": patches,
    "resnet12": resnet12,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "transformer": transformer,
    "vit": vit,
    "waveform": waveform,
}


def input_kind(encoder: nn.Module | Choice) -> InputKind:
    """What the encoder takes, as its class says by ``takes``; images (or flat inputs) where it does not say."""
    return getattr(_module(encoder), "takes", "images")


def input_dtype(encoder: nn.Module | Choice) -> Any:
    """The number format that the encoder's inputs have in a pool."""
    return {"tokens": jnp.int32, "waves": jnp.int16}.get(input_kind(encoder), jnp.uint8)


def encoders_for(kind: InputKind) -> list[str]:
    """The names of the encoders that take such inputs."""
    return [name for name, factory in sorted(ENCODERS.items()) if input_kind(factory()) == kind]


def check_inputs(encoder: nn.Module | Choice, inputs: Array, vocabulary: int = 0) -> None:
    """Raises ValueError when the encoder does not take such inputs; says which encoders do.

    Args:
      encoder: any encoder, or the choice of one.
      inputs: [n, ...] of the data.
      vocabulary: of the tokenizer whose token ids they are, or 0.
    """
    forms: dict[tuple[int, str], InputKind] = {
        (4, "uint8"): "images",
        (4, "float32"): "images",
        (2, "int32"): "tokens",
        (2, "int16"): "waves",
    }
    data, kind = forms.get((inputs.ndim, str(inputs.dtype))), input_kind(encoder)
    if data is not None and kind != data:
        name = encoder.name if isinstance(encoder, Choice) else type(encoder).__name__
        raise ValueError(
            f"the encoder {name} takes {kind}, the data are {data}; encoders that take "
            f"those: {', '.join(encoders_for(data))}; choose one by --encoder"
        )
    known = getattr(_module(encoder), "vocabulary", None)
    if kind == "tokens" and known is not None and vocabulary > known:
        raise ValueError(
            f"the tokenizer has {vocabulary} tokens, the encoder's vocabulary is {known}; give a larger "
            f"--encoder.vocabulary, or a smaller --data.vocabulary"
        )


def _module(encoder: nn.Module | Choice) -> Any:
    return encoder.build() if isinstance(encoder, Choice) else encoder
