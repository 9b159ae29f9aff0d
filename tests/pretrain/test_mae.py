"""The masked autoencoder: who sees which patches, and which errors count."""

from functools import partial

import jax
import numpy as np
import pytest

from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.vision_transformer import VisionTransformer, patchify
from metarep_jax.pretrain.mae import choose_patches, mae, masked_error, visible_count
from metarep_jax.types import Keys

ENCODER = VisionTransformer(patch=2, width=8, depth=1, heads=2)
IMAGES = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype(np.float32)
KEYS = Keys(jax.random.split(jax.random.key(1), 5), jax.random.key(2))


choose = jax.jit(choose_patches, static_argnums=(1, 2))
error = jax.jit(masked_error, static_argnums=3)


def patches_of(images):
    return np.asarray(jax.jit(patchify, static_argnums=1)(images, 2))


@pytest.fixture(scope="module")
def trained():
    objective = mae(ENCODER, decoder_width=8, decoder_depth=1, decoder_heads=2, normalise=False)
    params, state = jax.jit(objective.init)(jax.random.key(3), {"inputs": IMAGES})
    value_and_grad = jax.value_and_grad(lambda images: objective.loss(params, state, {"inputs": images}, KEYS, 0)[0])
    return objective, params, state, jax.jit(value_and_grad)


def hidden_pixels():
    """Which pixels lie in patches that the keys hide."""
    _, masked = choose(KEYS.example, 16, 4)
    grid = np.asarray(masked).reshape(5, 4, 1, 4, 1, 1)
    return np.broadcast_to(grid, (5, 4, 2, 4, 2, 1)).reshape(5, 8, 8, 1)


def test_each_row_shows_as_many_patches_of_its_own_choice():
    visible, masked = map(np.asarray, choose(KEYS.example, 16, 4))
    assert (masked.sum(1) == 12).all()
    assert not np.take_along_axis(masked, visible, axis=1).any()
    assert len({tuple(sorted(row)) for row in visible.tolist()}) > 1
    np.testing.assert_array_equal(choose(KEYS.example[2:3], 16, 4)[0], visible[2:3])


def test_errors_of_visible_patches_do_not_count():
    patches = patches_of(IMAGES)
    _, masked = choose(KEYS.example, 16, 4)
    wrong = patches + np.where(np.asarray(masked)[..., None], np.float32(0.5), np.float32(7.0))
    assert error(wrong, patches, masked, False) == pytest.approx(0.25, rel=1e-5)


def test_normalised_targets_have_mean_zero_and_unbiased_variance_one():
    patches = 3 + 2 * patches_of(IMAGES)
    zero, masked = np.zeros_like(patches), np.ones((5, 16), bool)
    assert error(zero, patches, masked, True) == pytest.approx(3 / 4, rel=1e-3)  # of 4 numbers
    assert error(np.ones_like(patches), patches, masked, True) == pytest.approx(1 + 3 / 4, rel=1e-3)
    assert error(zero, np.full_like(patches, 0.4), masked, True) == 0  # a patch without contrast


def test_the_normalised_error_of_one_patch_by_hand():
    patch, output = np.array([[[1.0, 2.0, 6.0]]]), np.array([[[0.5, 0.0, 1.0]]])
    spread = np.sqrt((2**2 + 1**2 + 3**2) / 2 + 1e-6)  # about the mean, 3: divided by one less than three
    wanted = np.mean((np.array([0.5, 0.0, 1.0]) - np.array([-2, -1, 3]) / spread) ** 2)
    assert error(output, patch, np.ones((1, 1), bool), True) == pytest.approx(wanted, rel=1e-5)


def test_patches_of_one_number_cannot_be_normalised():
    objective = mae(ENCODER.clone(patch=1), decoder_width=8, decoder_depth=1, decoder_heads=2)
    with pytest.raises(ValueError, match=r"a patch of one number has no standard deviation.* normalise=False"):
        jax.eval_shape(objective.init, jax.random.key(3), {"inputs": IMAGES})


def test_hidden_pixels_reach_the_loss_as_targets_alone(trained):
    """The predictions do not depend on them: the loss is quadratic in each, with the curvature of its mean."""
    _, _, _, loss = trained
    hidden = hidden_pixels()
    moved = IMAGES + np.float32(0.3) * hidden
    (one, gradient), (other, _) = jax.device_get((loss(IMAGES), loss(moved)))
    inner = np.sum(np.where(hidden, gradient, 0) * 0.3)
    assert other - one == pytest.approx(float(inner) + 0.3**2, rel=1e-4)


def test_visible_pixels_reach_the_loss_through_the_encoder_alone(trained):
    objective, params, state, _ = trained
    blind = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.zeros_like(leaf) if path[0].key == "encoder" and path[1].key == "embed" else leaf, params
    )
    moved = np.where(hidden_pixels(), IMAGES, 1 - IMAGES)
    loss = jax.jit(lambda images: objective.loss(blind, state, {"inputs": images}, KEYS, 0)[0])
    assert float(loss(IMAGES)) == float(loss(moved))


def test_visible_patches_alone_determine_the_encoding(trained):
    _, params, _, _ = trained
    visible, _ = choose(KEYS.example, 16, 4)
    encode = jax.jit(partial(ENCODER.apply, {"params": params["encoder"]}, method="states"))
    moved = np.where(hidden_pixels(), np.float32(0.123), IMAGES)
    np.testing.assert_array_equal(encode(IMAGES, visible), encode(moved, visible))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5])
def test_ratios_that_hide_nothing_or_all_are_refused(ratio):
    with pytest.raises(ValueError, match=f"mask_ratio must lie between 0 and 1, got {ratio}"):
        mae(ENCODER, mask_ratio=ratio)


def test_a_ratio_that_leaves_no_patch_is_refused():
    with pytest.raises(ValueError, match=r"of the 4 patches of 4×4 pixels in images of 8×8, mask_ratio 0\.9 leaves 0"):
        visible_count((5, 8, 8, 1), 4, 0.9)


def test_an_encoder_without_patches_is_refused():
    with pytest.raises(ValueError, match="needs an encoder of image patches"):
        mae(MLP())
