"""Reconstruction and prediction on several devices: gradient and state are those of one function of the batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_checks import SIZE, all_devices, check_devices, encoder

from metarep_jax.encoders.decoder import MLPDecoder
from metarep_jax.encoders.sequences import ContextEncoder, PatchFrames
from metarep_jax.encoders.transformer import TextTransformer
from metarep_jax.encoders.vision_transformer import VisionTransformer
from metarep_jax.encoders.waveform import WaveformFrames
from metarep_jax.pretrain.autoencoder import autoencoder
from metarep_jax.pretrain.cpc import cpc
from metarep_jax.pretrain.mae import mae
from metarep_jax.pretrain.masked_lm import masked_lm
from metarep_jax.pretrain.rotation import rotation
from metarep_jax.pretrain.vae import vae
from metarep_jax.types import PAD_SAMPLE

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(size=(SIZE, 4, 4, 1)).astype(np.float32)
LENGTHS = RANDOM.integers(3, 10, SIZE)  # so that devices hold unequal numbers of what is counted
TOKENS = np.where(np.arange(10) < LENGTHS[:, None], RANDOM.integers(5, 30, (SIZE, 10)), 0).astype(np.int32)
WAVES = RANDOM.integers(-9000, 9000, (SIZE, 14))
WAVES = np.where(np.arange(14) < 1.5 * LENGTHS[:, None], WAVES, PAD_SAMPLE).astype(np.int16)
DECODER = partial(MLPDecoder, widths=())


def wave_cpc(negatives, axis):
    return cpc(ContextEncoder(WaveformFrames(3, (2,)), context=3), ahead=(1, 2), negatives=negatives, axis_name=axis)


def moved(keys, images):
    """Views that depend on their key, by a rule that compiles fast."""
    shift = jax.random.key_data(keys)[:, :1, None, None].astype(jnp.float32) / 2.0**32
    return images + 0.3 * shift * images**2


OBJECTIVES = {
    "autoencoder": (lambda axis: autoencoder(encoder(axis), noise=0.1, drop=0.2, decoder=DECODER), IMAGES),
    "vae": (
        lambda axis: vae(encoder(axis), latent=3, free_bits=0.05, binarise=True, decoder=DECODER, axis_name=axis),
        IMAGES,
    ),
    "mae": (
        lambda axis: mae(
            VisionTransformer(patch=2, width=4, depth=1, heads=1, readout="cls"),
            decoder_width=4,
            decoder_depth=1,
            decoder_heads=1,
        ),
        IMAGES,
    ),
    "rotation": (lambda axis: rotation(encoder(axis), augment=moved), IMAGES),
    "masked_lm": (
        lambda axis: masked_lm(TextTransformer(30, width=4, depth=1, heads=1, longest=10), share=0.3, axis_name=axis),
        TOKENS,
    ),
    "cpc across": (partial(wave_cpc, "across"), WAVES),
    "cpc of patches": (
        lambda axis: cpc(
            ContextEncoder(PatchFrames(encoder(axis, "layer"), patch=2, stride=1), context=3),
            ahead=(3,),
            axis_name=axis,
        ),
        IMAGES,
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@all_devices
def test_any_number_of_devices_computes_the_same_update(name, count):
    make, inputs = OBJECTIVES[name]
    check_devices(make, count, {"inputs": inputs, "index": np.arange(SIZE)})


@pytest.mark.parametrize("negatives", ["within", "all"])
@all_devices
def test_negatives_of_other_kinds_do_not_depend_on_the_devices_either(negatives, count):
    check_devices(partial(wave_cpc, negatives), count, {"inputs": WAVES, "index": np.arange(SIZE)})
