"""Occlusion maps: a model that looks at one pixel loses its answer exactly where that pixel is covered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.evaluate.occlusion import occlusion_maps


def looks_at(row, column):
    """Logits (value at that pixel, 0)."""
    return lambda images: jnp.stack([images[:, row, column, 0], jnp.zeros(len(images))], 1)


def test_only_squares_over_the_pixel_that_matters_cost_anything():
    image = jnp.zeros((1, 5, 5, 1)).at[0, 2, 3, 0].set(25.0)  # covered, it becomes the mean: 1
    found = occlusion_maps(looks_at(2, 3), image, jnp.array([0]), size=1, stride=1)[0]
    wanted = np.zeros((5, 5))
    wanted[2, 3] = float(jax.nn.log_sigmoid(25.0) - jax.nn.log_sigmoid(1.0))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_pixel_gets_the_mean_over_the_squares_that_cover_it():
    image = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(16.0)
    lost = float(jax.nn.log_sigmoid(16.0) - jax.nn.log_sigmoid(1.0))
    found = occlusion_maps(looks_at(0, 0), image, jnp.array([0]), size=2, stride=1)[0]
    np.testing.assert_allclose(found[:2, :2], [[lost, lost / 2], [lost / 2, lost / 4]], rtol=1e-5)
    np.testing.assert_allclose(found[2:], 0, atol=1e-6)


def test_steps_that_do_not_meet_the_border_still_cover_every_pixel():
    image = jnp.zeros((1, 6, 7, 1)).at[0, 5, 6, 0].set(42.0)
    found = occlusion_maps(looks_at(5, 6), image, jnp.array([0]), size=3, stride=2)[0]
    assert jnp.isfinite(found).all() and float(found[5, 6]) > 0.3


def test_a_square_beyond_the_image_is_refused():
    with pytest.raises(ValueError, match="7 pixels by steps of 2 does not fit images of 5×5"):
        occlusion_maps(looks_at(0, 0), jnp.zeros((1, 5, 5, 1)), jnp.array([0]))
