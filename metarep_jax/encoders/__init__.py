"""Encoders: Flax Linen modules ``(x, mask, running) -> features [batch, dim]``.

``x`` is images, uint8 in 0–255 or float in [0, 1]; or rows of token ids; or 16-bit waveforms. ``mask`` [batch] says
which rows enter batch statistics (padding must not); ``running=True`` normalises with the running averages.

An encoder of your own is a factory of keywords, ``my_encoder(*, width=64) -> nn.Module``, named by its dotted path. Its
class says by ``takes`` what it encodes ("images" where it does not say, "tokens" or "waves"), and keeps layers that
others may read by ``keep_layer``.
"""

from metarep_jax.encoders.config import EncoderConfig, encoder_from_union, make_encoder
from metarep_jax.encoders.layers import IMAGENET_MEAN, IMAGENET_STD
from metarep_jax.encoders.named_layers import apply_with_layers, encoder_layers, keep_layer, layer_names
from metarep_jax.encoders.pretrained_weights import PretrainedEncoder, read_pretrained
from metarep_jax.encoders.registry import ENCODERS, check_inputs, encoders_for, input_dtype, input_kind
from metarep_jax.encoders.statistics import refit_statistics
from metarep_jax.encoders.tensor_files import load_safetensors, save_safetensors
from metarep_jax.encoders.variables import (
    check_encoder_variables,
    count_parameters,
    encoder_variables,
    split_variables,
)

__all__ = [
    "ENCODERS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "EncoderConfig",
    "PretrainedEncoder",
    "apply_with_layers",
    "check_encoder_variables",
    "check_inputs",
    "count_parameters",
    "encoder_from_union",
    "encoder_layers",
    "encoder_variables",
    "encoders_for",
    "input_dtype",
    "input_kind",
    "keep_layer",
    "layer_names",
    "load_safetensors",
    "make_encoder",
    "read_pretrained",
    "refit_statistics",
    "save_safetensors",
    "split_variables",
]
