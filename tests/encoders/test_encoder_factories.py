"""Every encoder's factory: its own keywords, described and checked; what encoders take; settings of older models."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from metarep_jax.choices import argument_lines
from metarep_jax.encoders import (
    ENCODERS,
    EncoderConfig,
    check_inputs,
    encoder_from_union,
    input_dtype,
    input_kind,
    make_encoder,
)
from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.layers import IMAGENET_MEAN, IMAGENET_STD, as_image_float
from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.resnet import ResNet
from metarep_jax.encoders.sequences import ContextEncoder
from metarep_jax.encoders.vision_transformer import VisionTransformer

IMAGES, TOKENS, WAVES = (
    jnp.zeros((2, 8, 8, 1), jnp.uint8),
    jnp.zeros((2, 9), jnp.int32),
    jnp.zeros((2, 800), jnp.int16),
)
UNION = {  # every field of what encoders were described by before each had its own settings, at its default
    "width": 64, "downsample": "stride", "readout": "flatten", "stem": "small", "norm": "batch", "mean": 0.0,
    "std": 1.0, "conv": "auto", "depth": 4, "heads": 4, "patch": 4, "patch_stride": None, "vocabulary": 8192,
    "strides": [5, 4, 2, 2, 2], "context": 128, "rate": 8000,
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_every_keyword_has_a_default_and_a_description(name):
    parameters = inspect.signature(ENCODERS[name]).parameters.values()
    described = argument_lines(inspect.getdoc(ENCODERS[name]))
    assert {parameter.name for parameter in parameters} == described.keys()
    assert all(parameter.kind == parameter.KEYWORD_ONLY for parameter in parameters)
    assert all(parameter.default is not parameter.empty for parameter in parameters)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_defaults_are_those_of_older_models(name):
    assert encoder_from_union({"name": name, **UNION}) == EncoderConfig(name)


def test_settings_of_older_models_become_the_encoders_own():
    fields = {**UNION, "name": "waveform", "width": 32, "strides": [8, 5, 4], "readout": "moments", "depth": 9}
    assert encoder_from_union(fields) == EncoderConfig("waveform", width=32, strides=(8, 5, 4), readout="moments")
    fields = {**UNION, "name": "vit", "readout": "first_last", "depth": 2}
    assert encoder_from_union(fields) == EncoderConfig("vit", depth=2)
    assert encoder_from_union({"name": "mlp", "width": 8, "depth": 2}) == EncoderConfig("mlp", width=8)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("conv4", {"width": 0}, "width must be positive, got 0"),
        ("conv4", {"std": (1.0, 0.0)}, r"std must be positive, got \(1.0, 0.0\)"),
        ("conv4", {"patch": 4}, "the encoder conv4 has no setting patch; it has: width, downsample, readout"),
        ("mlp", {"depth": 0}, "depth must be positive, got 0"),
        ("vit", {"width": 10, "heads": 4}, "width 10 cannot be split into 4 heads"),
        ("waveform", {"strides": ()}, "strides must hold at least one number"),
        ("waveform", {"strides": (5, 0)}, r"strides must be positive, got \(5, 0\)"),
        ("patches", {"patch_stride": 0}, "stride must be positive, got 0"),
        ("log_mel", {"rate": -1}, "rate must be positive, got -1"),
        ("conv5", {}, r"unknown encoder 'conv5' \(did you mean conv4\?\); there are: conv4"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_they_are_chosen(name, keywords, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(name, **keywords)


@pytest.mark.parametrize(
    ("module", "keywords", "message"),
    [
        (Conv4, {"norm": "instance"}, "unknown norm 'instance'; there are: batch, group, layer, none"),
        (ResNet, {"stem": "large"}, "unknown stem 'large'; there are: small, imagenet"),
        (VisionTransformer, {"gelu": "fast"}, "unknown gelu 'fast'; there are: tanh, exact"),
        (ContextEncoder, {"frames": MLP(), "readout": "last"}, "unknown readout 'last'; there are: context, frames"),
    ],
)
def test_an_unknown_word_lists_those_that_exist(module, keywords, message):
    with pytest.raises(ValueError, match=message):
        module(**keywords)


class Pixels(nn.Module):
    """An encoder of a user's own, which says nothing of what it takes."""

    size: int

    @nn.compact
    def __call__(self, x, mask=None, running=False):
        return nn.Dense(self.size)(x.reshape(len(x), -1) / 255)


def pixels(*, size: int = 3) -> nn.Module:
    """A linear encoder.

    Args:
      size: features.
    """
    return Pixels(size)


def test_an_encoder_of_ones_own_is_built_by_its_dotted_path():
    encoder = make_encoder(EncoderConfig(f"{__name__}:pixels", size=5), axis_name="devices", dtype=jnp.bfloat16)
    assert encoder == Pixels(5) and input_kind(encoder) == "images"
    with pytest.raises(ValueError, match=r"encoder .*:no_encoder returned str, wanted is a flax.linen.module.Module"):
        EncoderConfig(f"{__name__}:no_encoder")


def no_encoder() -> str:
    return "features"


def test_what_a_stage_supplies_reaches_the_encoders_that_have_it():
    assert make_encoder(EncoderConfig("mlp", width=4), axis_name="devices").axis_name == "devices"
    assert make_encoder(EncoderConfig(), adapted=True).conv == "patches"
    assert make_encoder(EncoderConfig("log_mel"), axis_name="devices") == ENCODERS["log_mel"]()


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("vit", TOKENS, "the encoder vit takes images, the data are tokens; encoders that take those: transformer;"),
        ("mlp", WAVES, "takes images, the data are waves; encoders that take those: log_mel, waveform; choose one by"),
        ("waveform", IMAGES, "takes waves, the data are images; encoders that take those: conv4, mlp, patches"),
    ],
)
def test_inputs_of_another_kind_are_refused_with_the_encoders_that_fit(name, inputs, message):
    with pytest.raises(ValueError, match=message):
        check_inputs(EncoderConfig(name), inputs)


def test_inputs_that_fit_are_of_the_kind_and_number_format_that_the_encoder_says():
    for name, inputs in (("conv4", IMAGES), ("transformer", TOKENS), ("log_mel", WAVES)):
        check_inputs(ENCODERS[name](), inputs, vocabulary=100)
        assert input_dtype(ENCODERS[name]()) == inputs.dtype
    with pytest.raises(ValueError, match=r"the tokenizer has 100 tokens, .* is 50; give a larger --encoder.vocabulary"):
        check_inputs(ENCODERS["transformer"](vocabulary=50), TOKENS, vocabulary=100)


def test_pixels_are_normalised_by_channel():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8))
    wanted = (np.asarray(images) / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(as_image_float(images, IMAGENET_MEAN, IMAGENET_STD), wanted, atol=1e-5)
    same = MLP(widths=(4,), mean=0.5, std=0.2), MLP(widths=(4,), mean=(0.5,) * 3, std=(0.2,) * 3)
    variables = same[0].init(jax.random.key(0), images)
    np.testing.assert_allclose(*(encoder.apply(variables, images) for encoder in same), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="mean has 3 numbers, the images have 1 channels"):
        as_image_float(IMAGES, IMAGENET_MEAN)
