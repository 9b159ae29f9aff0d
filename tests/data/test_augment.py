"""Augmentation: identities, exact flips, ranges, and views that depend on their own key only."""

from functools import partial

import jax
import numpy as np
import pytest

from metarep_jax.backend import compiling_for
from metarep_jax.data.images import augment
from metarep_jax.data.images.warp import resample, warp

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
KEYS = jax.random.split(jax.random.key(0), 6)
IMAGES = np.random.default_rng(1).uniform(size=(6, 12, 10, 3)).astype(np.float32)
IDENTITIES = {
    "warp": warp(),
    "crop of everything": augment.random_resized_crop((1.0, 1.0), (1.0, 1.0)),
    "flip never": augment.flip(0.0),
    "jitter of nothing": augment.colour_jitter(0.0, 0.0, 0.0, 0.0),
    "greyscale never": augment.greyscale(0.0),
    "narrowest blur": augment.blur((1e-3, 1e-3), probability=1.0),
    "shift of nothing": augment.shift(0),
    "strokes as thick as they are": augment.thickness(0.0),
    "no steps": augment.compose(),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_settings_give_the_image(name):
    close(jax.jit(IDENTITIES[name])(KEYS, IMAGES), IMAGES)


@pytest.mark.parametrize("name", augment.PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_depends_on_its_own_key_and_image_only(name, channels):
    views = jax.jit(augment.make_augment(name))
    images = (255 * IMAGES[..., :channels]).astype(np.uint8)
    together = np.asarray(views(KEYS, images))
    assert together.shape == images.shape
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() <= 1 + 1e-5
    order = np.array([4, 0, 2])
    close(views(KEYS[order], images[order]), together[order])
    if name != "none":
        assert np.abs(np.asarray(views(KEYS[::-1], images)) - together).max() > 0.05


def test_none_only_converts():
    close(jax.jit(augment.make_augment("none"))(KEYS, np.full((6, 2, 2, 1), 51, np.uint8)), 0.2)


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(ValueError, match="'mixup'; there are: none, glyph, handwriting, handwriting-strokes"):
        augment.make_augment("mixup")


def test_flips_are_exact_and_happen_half_of_the_time():
    keys = jax.random.split(jax.random.key(2), 2000)
    images = np.broadcast_to(IMAGES[:1], (2000, *IMAGES.shape[1:]))
    flipped = np.asarray(jax.jit(augment.flip())(keys, images))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (flipped == images).all((1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / 2000**0.5


resampled = jax.jit(resample, static_argnames="how")


def test_a_quarter_turn_is_exact():
    square = IMAGES[:, :10]
    y, x = np.meshgrid(np.arange(10.0), np.arange(10.0), indexing="ij")
    turned = resampled(square, np.broadcast_to(x, (6, 10, 10)), np.broadcast_to(9 - y, (6, 10, 10)))
    close(turned, np.rot90(square, axes=(1, 2)))


def test_resampling_is_linear_between_pixels_and_zero_outside():
    ramp = np.arange(4.0)[None, :, None, None] + 10 * np.arange(5.0)[None, None, :, None]
    y, x = np.array([[[0.25, 2.5, -0.5, -7.0, 3.5]]]), np.array([[[1.5, 3.75, 2.0, 1.0, 4.5]]])
    close(np.asarray(resampled(ramp, y, x))[0, 0, :, 0], [15.25, 40.0, 10.0, 0.0, 43 / 4])


def test_translation_moves_the_image_by_whole_pixels_where_the_shift_is_whole():
    at = np.arange(8.0)
    y, x = np.meshgrid(at + 2, at - 1, indexing="ij")
    image = IMAGES[:1, :8, :8]
    moved = np.asarray(resampled(image, y[None], x[None]))
    close(moved[:, :6, 1:], image[:, 2:, :7])
    close(moved[:, 6:], 0)


def test_a_shift_moves_by_whole_pixels_repeats_the_border_and_reaches_every_place():
    image = np.pad(np.ones((1, 1, 1), np.float32), ((3, 3), (3, 3), (0, 0)))
    shift, keys = jax.jit(augment.shift(1)), jax.random.split(jax.random.key(0), 200)
    views = np.asarray(shift(keys, np.broadcast_to(image, (200, 7, 7, 1))))
    assert {tuple(np.argwhere(view[..., 0])[0]) for view in views} == {(y, x) for y in (2, 3, 4) for x in (2, 3, 4)}
    assert (views.sum((1, 2, 3)) == 1).all()
    stripes = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 4, 1), np.float32)
    shifted = np.asarray(shift(keys, np.broadcast_to(stripes, (200, 4, 4, 1))))
    rows = {tuple(view[:, 0, 0].tolist()) for view in shifted}
    assert rows == {(0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 3)}


def test_the_elastic_displacement_has_the_stated_standard_deviation_everywhere():
    size, strength = 24, 0.04
    keys = jax.random.split(jax.random.key(3), 3000)
    ramp = np.broadcast_to(np.arange(size, dtype=np.float32)[:, None, None] / size, (3000, size, size, 1))
    middle = (np.asarray(jax.jit(warp(elastic=strength))(keys, ramp)) - ramp)[:, 6:18, 6:18, 0]
    np.testing.assert_allclose(middle.std(0), strength, rtol=0.08)
    np.testing.assert_allclose(middle.mean(0), 0, atol=4 * strength / 3000**0.5)


def test_grey_images_have_no_colour_and_keep_their_brightness():
    grey = np.asarray(jax.jit(augment.greyscale(1.0))(KEYS, IMAGES))
    close(grey[..., 0], grey[..., 2])
    close(grey[..., 0], IMAGES @ np.array([0.299, 0.587, 0.114]))


def test_strokes_grow_and_shrink_by_one_pixel_at_most():
    image = np.zeros((9, 9, 1), np.float32)
    image[3:6, 3:6] = 1.0  # a square of three pixels a side
    keys = jax.random.split(jax.random.key(5), 50)
    views = np.asarray(jax.jit(augment.thickness(1.0))(keys, np.broadcast_to(image, (50, 9, 9, 1))))[..., 0]
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: jax.random.uniform(key, (), minval=-1.0, maxval=1.0)))(keys))
    grown, shrunk = np.maximum(drawn, 0), np.maximum(-drawn, 0)
    close(views[:, 4, 4], 1.0)
    close(views[:, 3, 3], 1 - shrunk)
    close(views[:, 2, 6], grown)
    close(views.sum((1, 2)), 9 + 16 * grown - 8 * shrunk)


def test_hue_turns_leave_grey_alone_and_whole_turns_leave_all_colours():
    turn = jax.jit(augment._hue_rotation)
    close(np.ones(3) @ np.asarray(turn(np.float32(1.0))), 1)
    close(turn(np.float32(2 * np.pi)), np.eye(3))


def test_blur_keeps_constant_images_and_spreads_a_point_symmetrically():
    blur = jax.jit(augment.blur((1.0, 1.0), size=0.5, probability=1.0))
    close(blur(KEYS, np.full_like(IMAGES, 0.3)), 0.3)
    point = np.zeros((6, 11, 11, 1), np.float32)
    point[:, 5, 5] = 1.0
    spread = np.asarray(blur(KEYS, point))
    close(spread, spread[:, ::-1])
    close(spread, spread.transpose(0, 2, 1, 3))
    close(spread[:, 5, 6] / spread[:, 5, 5], np.exp(-0.5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: warp(rotation=-1.0), "rotation must not be negative"),
        (lambda: warp(smoothness=0.0), "smoothness must be positive"),
        (lambda: augment.thickness(1.5), r"most must lie in \[0, 1\]"),
        (lambda: augment.flip(1.5), r"probability lies in \[0, 1\]"),
        (lambda: augment.random_resized_crop((0.0, 1.0)), "scale must be an increasing pair"),
        (lambda: augment.random_resized_crop(ratio=(2.0, 1.0)), "ratio must be an increasing pair"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_products_resample_as_gathers_do_inside_at_the_edges_and_outside():
    rng = np.random.default_rng(3)
    y, x = (rng.uniform(-3, size + 2, (6, 12, 10)).astype(np.float32) for size in (12, 10))
    y[0], x[0] = np.round(y[0]), np.round(x[0])  # whole pixels
    by_gathers, by_products = (resampled(IMAGES, y, x, how=how) for how in ("gathers", "products"))
    np.testing.assert_allclose(by_products, by_gathers, atol=1e-6)


def test_small_images_are_resampled_by_products_on_accelerators_alone():
    def has_gather(side):
        shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((2, side, side, 1), (2, 3, 3), (2, 3, 3))]
        return "gather" in str(jax.make_jaxpr(lambda *args: resample(*args))(*shapes))

    assert has_gather(28) and has_gather(84)
    with compiling_for("tpu"):
        assert not has_gather(28) and has_gather(84)
