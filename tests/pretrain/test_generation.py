"""Images by generative objectives: the errors that their losses measure, and lines and samples of latents."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.decoder import MLPDecoder
from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.transformer import VisionTransformer, patchify, unpatchify
from metarep_jax.pretrain import ObjectiveConfig, autoencoder, denoising_autoencoder, mae, make_objective, vae
from metarep_jax.pretrain.generation import interpolate, sample_prior
from metarep_jax.pretrain.mae import choose_patches
from metarep_jax.pretrain.vae_model import vae_model
from metarep_jax.types import Keys

LINEAR = partial(MLPDecoder, widths=())
KEYS = Keys(jax.random.split(jax.random.key(1), 5), jax.random.key(2))
ROWS = jax.random.uniform(jax.random.key(0), (5, 6))
IMAGES = jax.random.uniform(jax.random.key(0), (5, 8, 8, 1))
MAE = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


@pytest.fixture(scope="module")
def linear_vae():
    """A model whose posterior's mean and decoder are affine."""
    model = vae_model(Identity(), latent=3, likelihood="gaussian", decoder=LINEAR)
    return model, *jax.jit(model.init)(jax.random.key(3), {"inputs": ROWS})


@pytest.mark.parametrize("settings", [{}, {"drop": 0.5}, {"noise": 0.2}])
def test_an_autoencoders_picture_has_the_error_that_its_loss_is(settings):
    objective = autoencoder(Identity(), decoder=LINEAR, **settings)
    params, state = objective.init(jax.random.key(3), {"inputs": ROWS})
    found = objective.judge.reconstruct(params, state, ROWS, KEYS.example)
    loss, _ = objective.loss(params, state, {"inputs": ROWS}, KEYS, 0)
    assert jnp.square(found["reconstruction"] - found["original"]).mean() == pytest.approx(float(loss), rel=1e-5)
    assert list(found) == ["original", *(["corrupted"] if settings else []), "reconstruction"]


def test_a_denoising_autoencoders_picture_is_corrupted_as_its_training_is_by_default():
    objective = denoising_autoencoder(Identity(), decoder=LINEAR)
    params, state = objective.init(jax.random.key(3), {"inputs": ROWS})
    rows = jnp.ones((400, 6))
    found = objective.judge.reconstruct(params, state, rows, jax.random.split(jax.random.key(1), 400))
    assert jnp.mean(found["corrupted"] == 0) == pytest.approx(0.25, abs=0.03)


def test_a_vaes_model_is_by_default_the_one_it_trains():
    model, trains = (inspect.signature(function).parameters for function in (vae_model, vae))
    assert all(model[key].default == trains[key].default for key in model)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_masked_autoencoders_picture_has_its_losses_error_where_it_was_masked_and_none_elsewhere(normalise):
    encoder = VisionTransformer(patch=2, width=8, depth=1, heads=2, mean=0.4, std=0.5)
    objective = mae(encoder, normalise=normalise, **MAE)
    params, state = jax.jit(objective.init)(jax.random.key(3), {"inputs": IMAGES})
    loss, _ = jax.jit(objective.loss)(params, state, {"inputs": IMAGES}, KEYS, 0)
    draw = jax.jit(objective.judge.reconstruct)
    found = {name: patchify(row, 2) for name, row in draw(params, state, IMAGES, KEYS.example).items()}
    _, masked = choose_patches(KEYS.example, 16, 4)
    patches = patchify(IMAGES, 2)
    scale = patches.std(-1, keepdims=True, ddof=1) if normalise else 0.5
    error = ((found["reconstruction"] - patches) / scale)[masked]
    assert jnp.square(error).mean() == pytest.approx(float(loss), rel=1e-3)
    np.testing.assert_allclose(found["original"], patches, atol=1e-6)
    for name in ("masked", "reconstruction"):
        np.testing.assert_allclose(found[name][~masked], patches[~masked], atol=1e-6)
    np.testing.assert_allclose(found["masked"][masked], 0.5, atol=1e-6)


def test_patches_put_together_are_the_image():
    images = jax.random.uniform(jax.random.key(4), (2, 6, 9, 2))
    np.testing.assert_array_equal(unpatchify(patchify(images, 3), (6, 9, 2), 3), images)


def test_the_ends_of_an_interpolation_are_the_reconstructions_and_a_linear_decoders_middle_is_their_mean(linear_vae):
    model, params, state = linear_vae
    found = interpolate(model, params, state, ROWS[:2], ROWS[2:4], 5)
    drawn = vae(Identity(), latent=3, likelihood="gaussian", decoder=LINEAR).judge.reconstruct
    first, second = (drawn(params, state, rows, KEYS.example[:2])["reconstruction"] for rows in (ROWS[:2], ROWS[2:4]))
    np.testing.assert_allclose(found[:, 0], first, rtol=1e-5)
    np.testing.assert_allclose(found[:, -1], second, rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], (first + second) / 2, rtol=1e-5, atol=1e-6)


def test_samples_of_a_linear_decoder_have_the_covariance_of_its_weights(linear_vae):
    model, params, state = linear_vae
    samples = np.asarray(sample_prior(model, params, state, jax.random.key(5), 100_000, (6,)))
    weight = np.asarray(params["decoder"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(samples.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), weight.T @ weight, atol=0.06)


def test_bernoulli_means_are_probabilities_and_pixels_are_drawn_by_their_grey_values():
    model = vae_model(Identity(), latent=3, decoder=LINEAR)
    params, state = model.init(jax.random.key(3), {"inputs": ROWS})
    grey = jnp.full((4000, 6), 0.3)
    keys = jax.random.split(jax.random.key(6), 4000)
    judge = vae(Identity(), latent=3, binarise=True, decoder=LINEAR).judge
    found = judge.reconstruct(params, state, grey, keys)
    assert set(np.unique(found["pixels drawn"])) == {0, 1}
    assert found["pixels drawn"].mean() == pytest.approx(0.3, abs=0.02)
    logits = model.decode(params, state, jnp.zeros((1, 3)), (6,))[0]
    middle = model.means(logits)
    np.testing.assert_allclose(middle, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_settings_of_an_objective_reach_its_picture():
    encoder = VisionTransformer(patch=2, width=8, depth=1, heads=2)
    config = ObjectiveConfig(name="mae", mask_ratio=0.25, decoder_width=8, decoder_depth=1)
    objective = make_objective(config, encoder)
    params, state = jax.jit(objective.init)(jax.random.key(3), {"inputs": IMAGES})
    found = jax.jit(objective.judge.reconstruct)(params, state, IMAGES, KEYS.example)
    assert jnp.mean(found["masked"] == 0.5) == pytest.approx(0.25)


def test_a_line_of_one_point_is_refused(linear_vae):
    model, params, state = linear_vae
    with pytest.raises(ValueError, match="at least 2 steps"):
        interpolate(model, params, state, ROWS[:1], ROWS[1:2], 1)
