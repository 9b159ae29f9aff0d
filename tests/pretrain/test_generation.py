"""Images by generative objectives: the errors that their losses measure, and lines and samples of latents."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.decoder import MLPDecoder
from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.vision_transformer import VisionTransformer, patchify, unpatchify
from metarep_jax.pretrain import ObjectiveConfig, autoencoder, denoising_autoencoder, mae, make_objective, vae
from metarep_jax.pretrain.generation import interpolate, sample_prior
from metarep_jax.pretrain.mae import choose_patches
from metarep_jax.pretrain.vae_model import vae_model
from metarep_jax.types import Keys

LINEAR = partial(MLPDecoder, widths=())
KEYS = Keys(jax.random.split(jax.random.key(1), 5), jax.random.key(2))
ROWS = np.random.default_rng(0).uniform(size=(5, 6)).astype(np.float32)
IMAGES = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype(np.float32)
MAE = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


@pytest.fixture(scope="module")
def linear_vae():
    """A model whose posterior's mean and decoder are affine."""
    model = vae_model(Identity(), latent=3, likelihood="gaussian", decoder=LINEAR)
    return model, *jax.jit(model.init)(jax.random.key(3), {"inputs": ROWS})


@pytest.mark.parametrize("settings", [{}, {"drop": 0.5}, {"noise": 0.2}])
def test_an_autoencoders_picture_has_the_error_that_its_loss_is(settings):
    objective = autoencoder(Identity(), decoder=LINEAR, **settings)
    names = []

    @jax.jit
    def loss_and_error(rows):
        params, state = objective.init(jax.random.key(3), {"inputs": rows})
        found = objective.judge.reconstruct(params, state, rows, KEYS.example)
        names.extend(found)
        error = jnp.square(found["reconstruction"] - found["original"]).mean()
        return objective.loss(params, state, {"inputs": rows}, KEYS, 0)[0], error

    loss, error = loss_and_error(ROWS)
    assert error == pytest.approx(float(loss), rel=1e-5)
    assert names == ["original", *(["corrupted"] if settings else []), "reconstruction"]


def test_a_denoising_autoencoders_picture_is_corrupted_as_its_training_is_by_default():
    objective = denoising_autoencoder(Identity(), decoder=LINEAR)

    @jax.jit
    def corrupted(rows):
        params, state = objective.init(jax.random.key(3), {"inputs": rows})
        return objective.judge.reconstruct(params, state, rows, jax.random.split(jax.random.key(1), 400))["corrupted"]

    rows = corrupted(np.ones((400, 6), np.float32))
    assert np.mean(np.asarray(rows) == 0) == pytest.approx(0.25, abs=0.03)


def test_a_vaes_model_is_by_default_the_one_it_trains():
    model, trains = (inspect.signature(function).parameters for function in (vae_model, vae))
    assert all(model[key].default == trains[key].default for key in model)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_masked_autoencoders_picture_has_its_losses_error_where_it_was_masked_and_none_elsewhere(normalise):
    encoder = VisionTransformer(patch=2, width=8, depth=1, heads=2, mean=0.4, std=0.5)
    objective = mae(encoder, normalise=normalise, **MAE)

    @jax.jit
    def outputs(images):
        params, state = objective.init(jax.random.key(3), {"inputs": images})
        loss, _ = objective.loss(params, state, {"inputs": images}, KEYS, 0)
        drawn = objective.judge.reconstruct(params, state, images, KEYS.example)
        found = {name: patchify(row, 2) for name, row in drawn.items()}
        return loss, found, choose_patches(KEYS.example, 16, 4)[1], patchify(images, 2)

    loss, found, masked, patches = jax.device_get(outputs(IMAGES))
    scale = patches.std(-1, keepdims=True, ddof=1) if normalise else 0.5
    error = ((found["reconstruction"] - patches) / scale)[masked]
    assert np.square(error).mean() == pytest.approx(float(loss), rel=1e-3)
    np.testing.assert_allclose(found["original"], patches, atol=1e-6)
    for name in ("masked", "reconstruction"):
        np.testing.assert_allclose(found[name][~masked], patches[~masked], atol=1e-6)
    np.testing.assert_allclose(found["masked"][masked], 0.5, atol=1e-6)


def test_patches_put_together_are_the_image():
    images = np.random.default_rng(4).uniform(size=(2, 6, 9, 2)).astype(np.float32)
    back = jax.jit(lambda images: unpatchify(patchify(images, 3), (6, 9, 2), 3))
    np.testing.assert_array_equal(back(images), images)


def test_the_ends_of_an_interpolation_are_the_reconstructions_and_a_linear_decoders_middle_is_their_mean(linear_vae):
    model, params, state = linear_vae
    drawn = vae(Identity(), latent=3, likelihood="gaussian", decoder=LINEAR).judge.reconstruct

    @jax.jit
    def line_and_ends(*ends):
        pictures = [drawn(params, state, rows, KEYS.example[:2])["reconstruction"] for rows in ends]
        return interpolate(model, params, state, *ends, 5), *pictures

    found, first, second = jax.device_get(line_and_ends(ROWS[:2], ROWS[2:4]))
    np.testing.assert_allclose(found[:, 0], first, rtol=1e-5)
    np.testing.assert_allclose(found[:, -1], second, rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], (first + second) / 2, rtol=1e-5, atol=1e-6)


def test_samples_of_a_linear_decoder_have_the_covariance_of_its_weights(linear_vae):
    model, params, state = linear_vae
    draw = jax.jit(lambda key: sample_prior(model, params, state, key, 100_000, (6,)))
    samples = np.asarray(draw(jax.random.key(5)))
    weight = np.asarray(params["decoder"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(samples.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), weight.T @ weight, atol=0.06)


def test_bernoulli_means_are_probabilities_and_pixels_are_drawn_by_their_grey_values():
    model = vae_model(Identity(), latent=3, decoder=LINEAR)
    judge = vae(Identity(), latent=3, binarise=True, decoder=LINEAR).judge

    @jax.jit
    def outputs(rows, grey, latents):
        params, state = model.init(jax.random.key(3), {"inputs": rows})
        found = judge.reconstruct(params, state, grey, jax.random.split(jax.random.key(6), 4000))
        logits = model.decode(params, state, latents, (6,))[0]
        return found["pixels drawn"], logits, model.means(logits)

    grey = np.full((4000, 6), 0.3, np.float32)
    pixels, logits, middle = jax.device_get(outputs(ROWS, grey, np.zeros((1, 3), np.float32)))
    assert set(np.unique(pixels)) == {0, 1}
    assert pixels.mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(middle, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_settings_of_an_objective_reach_its_picture():
    encoder = VisionTransformer(patch=2, width=8, depth=1, heads=2)
    config = ObjectiveConfig(name="mae", mask_ratio=0.25, decoder_width=8, decoder_depth=1)
    objective = make_objective(config, encoder)

    @jax.jit
    def masked(images):
        params, state = objective.init(jax.random.key(3), {"inputs": images})
        return objective.judge.reconstruct(params, state, images, KEYS.example)["masked"]

    assert np.mean(np.asarray(masked(IMAGES)) == 0.5) == pytest.approx(0.25)


def test_a_line_of_one_point_is_refused(linear_vae):
    model, params, state = linear_vae
    with pytest.raises(ValueError, match="at least 2 steps"):
        interpolate(model, params, state, jnp.asarray(ROWS[:1]), jnp.asarray(ROWS[1:2]), 1)
