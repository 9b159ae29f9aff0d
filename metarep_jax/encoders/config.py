"""Which encoder: by its name, or by the dotted path of a factory of your own."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from metarep_jax.choices import Choice
from metarep_jax.encoders.registry import ENCODERS


class EncoderConfig(Choice):
    """Which encoder, with its own settings: ``EncoderConfig("conv4", width=32)``.

    Raises:
      ValueError: also by the factory, for settings out of range.
    """

    what = "encoder"
    known = ENCODERS
    supplied = frozenset({"axis_name", "conv", "dtype"})
    default = "conv4"

    def __init__(self, name: str = "", keywords: Sequence[tuple[str, Any]] = (), **more: Any):
        super().__init__(name, keywords, **more)
        self.build(wanted=nn.Module, conv="lax")  # "auto" would ask for the backend, which must not start on import


def make_encoder(
    config: EncoderConfig,
    *,
    axis_name: str | None = None,
    dtype: Any = jnp.float32,
    adapted: bool = False,
    conv: str = "auto",
) -> nn.Module:
    """The module that ``config`` describes.

    Its factory is called as ``factory(**settings)``, with those of the arguments here that it has parameters for.

    Args:
      config: which encoder.
      axis_name: the mapped axis whose devices share batch statistics, or None.
      dtype: of the computation; parameters and statistics stay float32.
      adapted: whether kernels differ per task (an inner loop adapts them): then ``conv="auto"`` means "patches".
      conv: how convolutions are computed: "patches", "lax" or "auto".

    Raises:
      ValueError: by the factory, for settings out of range, or where it returns no Linen module.
    """
    conv = "patches" if adapted and conv == "auto" else conv
    return config.build(wanted=nn.Module, axis_name=axis_name, dtype=dtype, conv=conv)


def encoder_from_union(fields: Mapping[str, Any]) -> EncoderConfig:
    """The encoder that a union of all encoders' settings meant, as models saved before each had its own hold it.

    What the encoder does not have is left out, as it was of no effect: other encoders' fields, and a readout that it
    did not know.

    Args:
      fields: by name, as in ``spec.json``; ``"name"`` says which encoder.
    """
    name = fields["name"]
    has = set(inspect.signature(ENCODERS[name]).parameters) - EncoderConfig.supplied
    has -= {"depth"} if name == "mlp" else set()  # it was the Transformers'; an MLP had four layers
    has -= {"readout"} if fields.get("readout") not in KNEW_READOUTS.get(name, ()) else set()
    return EncoderConfig(name, **{key: value for key, value in fields.items() if key in has})


KNEW_READOUTS = {
    "conv4": ("flatten", "mean"),
    "transformer": ("mean", "cls", "first_last"),
    "vit": ("mean", "cls"),
    "waveform": ("moments",),
    "patches": ("moments",),
}
