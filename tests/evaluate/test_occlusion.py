"""Occlusion maps: a model that looks at one pixel loses its answer exactly where that pixel is covered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.evaluate.occlusion import occlusion_maps


def looks_at(row, column):
    """Logits (value at that pixel, 0)."""
    return lambda images: jnp.stack([images[:, row, column, 0], jnp.zeros(len(images))], 1)


def maps_of(row, column, value, shape, **how):
    """Of the model that looks at a pixel, for an image that is this value there and 0 elsewhere."""
    image = np.zeros((1, *shape, 1), np.float32)
    image[0, row, column, 0] = value
    label = np.zeros(1, np.int32)
    return np.asarray(jax.jit(lambda *given: occlusion_maps(looks_at(row, column), *given, **how))(image, label))[0]


def lost(before, after):
    """Log-probability of the first of two classes, whose logits fall from (before, 0) to (after, 0)."""
    return np.log1p(np.exp(-after)) - np.log1p(np.exp(-before))


def test_only_squares_over_the_pixel_that_matters_cost_anything():
    found = maps_of(2, 3, 25.0, (5, 5), size=1, stride=1)  # covered, it becomes the mean: 1
    wanted = np.zeros((5, 5))
    wanted[2, 3] = lost(25.0, 1.0)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_pixel_gets_the_mean_over_the_squares_that_cover_it():
    found, whole = maps_of(0, 0, 16.0, (4, 4), size=2, stride=1), lost(16.0, 1.0)
    np.testing.assert_allclose(found[:2, :2], [[whole, whole / 2], [whole / 2, whole / 4]], rtol=1e-5)
    np.testing.assert_allclose(found[2:], 0, atol=1e-6)


def test_steps_that_do_not_meet_the_border_still_cover_every_pixel():
    found = maps_of(5, 6, 42.0, (6, 7), size=3, stride=2)
    assert np.isfinite(found).all() and float(found[5, 6]) > 0.3


def test_a_square_beyond_the_image_is_refused():
    with pytest.raises(ValueError, match="7 pixels by steps of 2 does not fit images of 5×5"):
        occlusion_maps(looks_at(0, 0), jnp.zeros((1, 5, 5, 1)), jnp.array([0]))
