"""Encoders: Flax Linen modules ``(x, mask, running) -> features [batch, dim]``.

``x`` is images, uint8 in 0–255 or float in [0, 1]; or rows of token ids; or 16-bit waveforms. ``mask`` [batch] says
which rows enter batch statistics (padding must not); ``running=True`` normalises with the running averages.
"""

from metarep_jax.encoders.config import ENCODERS, EncoderConfig, check_inputs, input_dtype, input_kind, make_encoder
from metarep_jax.encoders.statistics import refit_statistics
from metarep_jax.encoders.variables import (
    check_encoder_variables,
    count_parameters,
    encoder_variables,
    split_variables,
)

__all__ = [
    "ENCODERS",
    "EncoderConfig",
    "check_encoder_variables",
    "check_inputs",
    "count_parameters",
    "encoder_variables",
    "input_dtype",
    "input_kind",
    "make_encoder",
    "refit_statistics",
    "split_variables",
]
