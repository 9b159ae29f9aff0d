"""Augmentation on the device, a whole batch at a time; each example's view depends on its own key only.

An augmentation is ``(keys [n], images [n, h, w, c]) -> views [n, h, w, c]``, images and views in [0, 1].
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from metarep_jax.data.images.warp import Augment, warp

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the grey that a colour looks like


def make_augment(name: str) -> Augment:
    """The augmentation of that name: ``(keys [n], images [n, h, w, c] uint8 or float) -> float views in [0, 1]``.

    none: the images as floats. glyph: affine and elastic, as if another hand had drawn the letter (ink bright on a dark
    ground). handwriting: the same with a milder affine map and a finer, stronger elastic one. handwriting-strokes:
    that, with thicker and thinner strokes. nudge: affine and elastic, weak. shift: by up to two whole pixels each way.
    simclr: crops, flips, colour jitter, greyscale and blur of Chen et al. 2020, appendix A. crop-flip: its first two.
    local-crop: a small part, enlarged, for multi-crop.

    Raises:
      ValueError: for an unknown name; lists what exists.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown augmentation {name!r}; there are: {', '.join(PRESETS)}")
    steps = PRESETS[name]

    def augment(keys: Key[Array, " n"], images: Shaped[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return compose(*steps)(keys, as_unit_float(images))

    return augment


def as_unit_float(images: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Images in [0, 1]: integers in 0–255 are divided by 255, floats stay."""
    return images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32) / 255


def compose(*steps: Augment) -> Augment:
    """One augmentation after another, each with keys of its own."""

    def augment(keys: Key[Array, " n"], images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        for index, step in enumerate(steps):
            images = step(jax.vmap(lambda key, index=index: jax.random.fold_in(key, index))(keys), images)
        return images

    return augment


def random_resized_crop(
    scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Augment:
    """A random rectangle of the image, enlarged to the image's size (bilinear).

    Args:
      scale: range of the rectangle's share of the area, in (0, 1].
      ratio: range of its width over height (drawn log-uniformly), relative to the image's own.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"random_resized_crop: scale must be an increasing pair in (0, 1], got {scale}")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"random_resized_crop: ratio must be an increasing pair of positive numbers, got {ratio}")

    def crop(key: Array, image: Array) -> Array:
        area, log_ratio, top, left = jax.random.uniform(key, (4,))
        area = scale[0] + (scale[1] - scale[0]) * area
        root = jnp.exp(0.5 * (math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * log_ratio))
        height = jnp.minimum(jnp.sqrt(area) / root, 1.0)
        width = jnp.minimum(jnp.sqrt(area) * root, 1.0)
        rows = _stretch(top * (1 - height), height, image.shape[0])
        columns = _stretch(left * (1 - width), width, image.shape[1])
        return jnp.einsum("ri,ijc,sj->rsc", rows, image, columns)

    return lambda keys, images: jax.vmap(crop)(keys, images)


def flip(probability: float = 0.5) -> Augment:
    """Mirrors left and right."""
    return sometimes(probability, lambda keys, images: images[:, :, ::-1])


def affine(*, rotation: float = 0.0, scale: float = 0.0, shear: float = 0.0, translation: float = 0.0) -> Augment:
    """A random affine map; settings as in ``warp``, which resamples once where an elastic map is wanted too."""
    return warp(rotation=rotation, scale=scale, shear=shear, translation=translation)


def shift(most: int) -> Augment:
    """Moves the image by whole pixels, up to ``most`` each way, without resampling; the border's pixels are repeated.

    Raises:
      ValueError: for fewer than 0 pixels.
    """
    if most < 0:
        raise ValueError(f"shift: the most pixels must not be negative, got {most}")

    def move(key: Array, image: Array) -> Array:
        top, left = jax.random.randint(key, (2,), 0, 2 * most + 1)
        wide = jnp.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
        return jax.lax.dynamic_slice(wide, (top, left, 0), image.shape)

    return lambda keys, images: jax.vmap(move)(keys, images)


def thickness(most: float) -> Augment:
    """Makes bright strokes thicker or thinner: the image, mixed with the largest or with the smallest value among each
    pixel and its eight neighbours (a dilation or an erosion).

    Args:
      most: the share of the mixture, and whether it is the largest or the smallest, is uniform in ±most; in [0, 1].

    Raises:
      ValueError: for a share outside [0, 1].
    """
    if not 0 <= most <= 1:
        raise ValueError(f"thickness: most must lie in [0, 1], got {most}")

    def largest(image: Array) -> Array:
        h, w = image.shape[:2]
        wide = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = jnp.maximum(jnp.maximum(wide[:h], wide[1 : h + 1]), wide[2:])
        return jnp.maximum(jnp.maximum(rows[:, :w], rows[:, 1 : w + 1]), rows[:, 2:])

    def change(key: Array, image: Array) -> Array:
        share = jax.random.uniform(key, (), minval=-most, maxval=most)
        thicker, thinner = largest(image) - image, image + largest(-image)
        return image + jnp.maximum(share, 0) * thicker - jnp.maximum(-share, 0) * thinner

    return lambda keys, images: jax.vmap(change)(keys, images)


def elastic(strength: float, smoothness: float = 0.15) -> Augment:
    """A random smooth displacement; settings as ``elastic`` and ``smoothness`` in ``warp``."""
    return warp(elastic=strength, smoothness=smoothness)


def colour_jitter(
    brightness: float = 0.8, contrast: float = 0.8, saturation: float = 0.8, hue: float = 0.2, probability: float = 0.8
) -> Augment:
    """Random brightness, contrast, saturation and hue, in this order; the last two only act on three channels.

    Args:
      brightness, contrast, saturation: factors are uniform in 1 ± setting (not below 0).
      hue: the shift, as a fraction of the colour circle, is uniform in ±hue; a rotation about the grey axis.
      probability: that an image is changed at all.
    """

    def jitter(key: Array, image: Array) -> Array:
        spread = jnp.array([brightness, contrast, saturation, hue])
        light, contrast_by, saturate, turn = spread * jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
        image = jnp.clip(image * jnp.maximum(1 + light, 0), 0, 1)
        middle = _grey(image).mean()
        image = jnp.clip(middle + (image - middle) * jnp.maximum(1 + contrast_by, 0), 0, 1)
        if image.shape[-1] != 3:
            return image
        grey = _grey(image)
        image = jnp.clip(grey + (image - grey) * jnp.maximum(1 + saturate, 0), 0, 1)
        return jnp.clip(image @ _hue_rotation(2 * math.pi * turn), 0, 1)

    return sometimes(probability, jax.vmap(jitter))


def greyscale(probability: float = 0.2) -> Augment:
    """Takes the colour out of three-channel images; others stay as they are."""
    return sometimes(probability, lambda keys, images: jnp.broadcast_to(_grey(images), images.shape))


def blur(sigma: tuple[float, float] = (0.1, 2.0), size: float = 0.1, probability: float = 0.5) -> Augment:
    """Gaussian blur with a width drawn uniformly from ``sigma`` (pixels); the kernel spans ``size`` of the image."""

    def smooth(key: Array, image: Array) -> Array:
        width = jax.random.uniform(key, (), minval=sigma[0], maxval=sigma[1])

        def weights(length: int) -> Array:
            apart = jnp.arange(length)[:, None] - jnp.arange(length)
            reach = max(round(size * length) // 2, 1)
            kernel = jnp.where(jnp.abs(apart) <= reach, jnp.exp(-0.5 * (apart / width) ** 2), 0.0)
            return kernel / kernel.sum(1, keepdims=True)

        return jnp.einsum("ri,ijc,sj->rsc", weights(image.shape[0]), image, weights(image.shape[1]))

    return sometimes(probability, jax.vmap(smooth))


def sometimes(probability: float, step: Augment) -> Augment:
    """``step`` on a random choice of the images, each with that probability."""
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability lies in [0, 1], got {probability}")

    def augment(keys: Key[Array, " n"], images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        pairs = jax.vmap(jax.random.split)(keys)
        chosen = jax.vmap(partial(jax.random.bernoulli, p=probability))(pairs[:, 0])
        return jnp.where(chosen[:, None, None, None], step(pairs[:, 1], images), images)

    return augment


HANDWRITING = warp(rotation=15.0, scale=0.2, shear=0.2, translation=0.08, elastic=0.06, smoothness=0.1)
PRESETS: dict[str, tuple[Callable[..., Array], ...]] = {
    "none": (),
    "glyph": (warp(rotation=20.0, scale=0.25, shear=0.3, translation=0.08, elastic=0.045, smoothness=0.15),),
    "handwriting": (HANDWRITING,),
    "handwriting-strokes": (HANDWRITING, thickness(0.5)),
    "nudge": (warp(rotation=8.0, scale=0.1, shear=0.1, translation=0.08, elastic=0.03, smoothness=0.1),),
    "shift": (shift(2),),
    "simclr": (random_resized_crop(), flip(), colour_jitter(), greyscale(), blur()),
    "crop-flip": (random_resized_crop(), flip()),
    "local-crop": (random_resized_crop((0.15, 0.5)),),
}


def _grey(images: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h w 1"]:
    weights = jnp.array(_LUMA) if images.shape[-1] == 3 else jnp.full(images.shape[-1], 1 / images.shape[-1])
    return (images * weights).sum(-1, keepdims=True)


def _hue_rotation(angle: Float[Array, ""]) -> Float[Array, "3 3"]:
    """Rotates colours (as rows) about the grey axis: Rodrigues' formula for the axis (1, 1, 1)/√3."""
    axis = 1 / math.sqrt(3)
    cross = axis * jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return jnp.cos(angle) * jnp.eye(3) + jnp.sin(angle) * cross.T + (1 - jnp.cos(angle)) / 3


def _stretch(start: Float[Array, ""], extent: Float[Array, ""], length: int) -> Float[Array, "length length"]:
    """Weights of bilinear sampling of [start, start + extent] (fractions of the axis) at ``length`` pixels."""
    at = (start + extent * (jnp.arange(length) + 0.5) / length) * length - 0.5
    at = jnp.clip(at, 0, length - 1)
    return jnp.maximum(1 - jnp.abs(at[:, None] - jnp.arange(length)), 0)
