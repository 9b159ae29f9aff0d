"""Rotation prediction: the images it makes, and what is right."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from metarep_jax.pretrain.rotation import all_turns, rotation
from metarep_jax.types import Keys

IMAGES = np.random.default_rng(0).uniform(size=(3, 4, 4, 1)).astype(np.float32)
KEYS = Keys(jax.random.split(jax.random.key(1), 3), jax.random.key(2))


class Corner(nn.Module):
    """Four features: is the first, the last … corner the brightest? With the classifier below, which way up."""

    @nn.compact
    def __call__(self, x, mask=None, running=False):
        return jnp.stack([x[:, 0, 0], x[:, -1, 0], x[:, -1, -1], x[:, 0, -1]], axis=-1)[:, 0]


@partial(jax.jit, static_argnums=0)
def loss_of_corner(objective, strength, images):
    """The loss of a classifier that takes the brightest corner's turn, so sure of it as ``strength`` says."""
    params, state = objective.init(jax.random.key(3), {"inputs": images})
    seen = params | {"classifier": {"kernel": strength * jnp.eye(4), "bias": jnp.zeros(4)}}
    return objective.loss(seen, state, {"inputs": images}, KEYS, 0)


def test_every_image_comes_under_four_turns_with_their_number():
    turned, turns = map(np.asarray, jax.jit(all_turns)(IMAGES))
    assert turns.tolist() == [0, 1, 2, 3] * 3
    for row, turn in enumerate(turns.tolist()):
        np.testing.assert_array_equal(turned[row], np.rot90(IMAGES[row // 4], turn))


def test_a_classifier_that_sees_the_turn_is_right_and_a_blind_one_loses_log_four():
    images = np.zeros((3, 4, 4, 1), np.float32)
    images[:, 0, 0] = 1.0  # rot90 takes the first corner to the lower left, and on
    for strength, loss, accuracy in ((50.0, 0.0, 1.0), (0.0, np.log(4), 0.25)):
        value, (_, metrics) = loss_of_corner(rotation(Corner()), strength, images)
        assert value == pytest.approx(loss, abs=1e-6)
        assert metrics["rotation_accuracy"] == accuracy


def test_views_are_made_before_the_turns():
    objective = rotation(Corner(), augment=lambda keys, images: jnp.zeros_like(images).at[:, 0, 0].set(1.0))
    assert loss_of_corner(objective, 50.0, IMAGES)[1][1]["rotation_accuracy"] == 1


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square images"):
        jax.eval_shape(rotation(Corner()).init, jax.random.key(3), {"inputs": np.zeros((2, 4, 5, 1))})
