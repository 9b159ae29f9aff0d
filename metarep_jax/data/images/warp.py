"""Geometric augmentation: one smooth random map an image, resampled once."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from metarep_jax.backend import target_backend

Augment = Callable[[Array, Array], Array]  # (keys [n], images [n, h, w, c] in [0, 1]) -> views of the same shape

# Pixels a side of the images that products resample: their arithmetic grows with the fourth power of it. An image of 64
# pixels and three channels takes 0.1 GFLOP.
LARGEST_BY_PRODUCTS = 64


def warp(
    *,
    rotation: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    translation: float = 0.0,
    elastic: float = 0.0,
    smoothness: float = 0.15,
) -> Augment:
    """A random affine map and a random elastic one, composed and resampled bilinearly in one pass.

    What is sampled from outside the image is 0. All settings at 0 give the image itself.

    Args:
      rotation: degrees; the angle is uniform in ±rotation.
      scale: each axis is scaled by exp(u), u uniform in ±scale.
      shear: the x coordinate shifts by y times a number uniform in ±shear.
      translation: each axis shifts by a fraction of its length uniform in ±translation.
      elastic: standard deviation, at every pixel and for each axis, of a smooth normal displacement, as a fraction of
        the axis's length (Simard et al. 2003, "Best practices for convolutional neural networks", section 2).
      smoothness: of that displacement: the standard deviation of its Gaussian kernel, as a fraction of the axis's
        length; positive.

    Raises:
      ValueError: for a negative setting, or a smoothness that is not positive.
    """
    settings = {"rotation": rotation, "scale": scale, "shear": shear, "translation": translation, "elastic": elastic}
    for name, value in settings.items():
        if value < 0:
            raise ValueError(f"warp: {name} must not be negative, got {value}")
    if smoothness <= 0:
        raise ValueError(f"warp: smoothness must be positive, got {smoothness}")
    most = (math.radians(rotation), scale, scale, shear, translation, translation)

    def augment(keys: Key[Array, " n"], images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        h, w = images.shape[1:3]
        rows, columns = control_weights(h, smoothness), control_weights(w, smoothness)

        shape = (2, rows.shape[1], columns.shape[1])

        def draw(key: Array) -> Array:  # all of an image's numbers at once: drawing is what compiles slowly
            least = jnp.nextafter(jnp.float32(-1.0), jnp.float32(0.0))
            return jax.random.uniform(key, (6 + (math.prod(shape) if elastic else 0),), minval=least, maxval=1.0)

        drawn = jax.vmap(draw)(keys)
        y, x = _affine(jnp.array(most) * drawn[:, :6], h, w)
        if elastic:
            noise = math.sqrt(2) * lax.erf_inv(drawn[:, 6:]).reshape(-1, *shape)  # uniform to normal
            field = elastic * jnp.einsum("ha,nkab,wb->knhw", rows, noise, columns)
            y, x = y + h * field[0], x + w * field[1]
        return resample(images, y, x)

    return augment


def resample(
    images: Float[Array, "n h w c"],
    y: Float[Array, "n oh ow"],
    x: Float[Array, "n oh ow"],
    how: Literal["auto", "gathers", "products"] = "auto",
) -> Float[Array, "n oh ow c"]:
    """Bilinear samples at positions in pixels (0 is the centre of the first); what lies outside is 0.

    Args:
      images: in [0, 1], or any numbers.
      y, x: a position for every sample.
      how: "gathers" reads four pixels a sample. "products" multiplies all of an image's rows, and then its columns, by
        weights that are zero but for two: more arithmetic, which grows with the image, and none of the gathers that
        fetch a pixel at a time on an accelerator. "auto": products on accelerators for images of up to
        ``LARGEST_BY_PRODUCTS`` pixels a side, else gathers.
    """
    if how == "auto":
        small = max(images.shape[1:3]) <= LARGEST_BY_PRODUCTS
        how = "products" if small and target_backend() != "cpu" else "gathers"
    return (_by_products if how == "products" else _by_gathers)(images, y, x)


def _by_products(images: Array, y: Array, x: Array) -> Array:
    n, h, w, c = images.shape
    rows, columns = _hat(y.reshape(n, -1), h), _hat(x.reshape(n, -1), w)
    stretched = jnp.einsum("nph,nhwc->npcw", rows, images, precision=lax.Precision.HIGHEST)
    return (stretched * columns[:, :, None]).sum(-1).reshape(*y.shape, c)


def _hat(position: Float[Array, "n p"], length: int) -> Float[Array, "n p length"]:
    """The weight of every pixel in a bilinear sample: 1 at its centre, falling to 0 at its neighbours'."""
    return jnp.maximum(1 - jnp.abs(position[..., None] - jnp.arange(length)), 0)


def _by_gathers(images: Array, y: Array, x: Array) -> Array:
    n, h, w, c = images.shape
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(n, -1, c)
    y, x = jnp.clip(y, -1, h), jnp.clip(x, -1, w)
    top, left = jnp.clip(jnp.floor(y), -1, h - 1), jnp.clip(jnp.floor(x), -1, w - 1)
    down, right = (y - top)[..., None], (x - left)[..., None]
    corner = ((top + 1) * (w + 2) + left + 1).astype(jnp.int32).reshape(n, -1)

    def pixels(offset: int) -> Array:
        taken = jnp.take_along_axis(padded, (corner + offset)[..., None], axis=1, mode="promise_in_bounds")
        return taken.reshape(*y.shape, c)

    above = pixels(0) * (1 - right) + pixels(1) * right
    below = pixels(w + 2) * (1 - right) + pixels(w + 3) * right
    return above * (1 - down) + below * down


def _affine(drawn: Float[Array, "n 6"], h: int, w: int) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"]]:
    angle, scale_y, scale_x, shear, shift_y, shift_x = (part[:, None, None] for part in drawn.T)
    middle_y, middle_x = (h - 1) / 2, (w - 1) / 2
    y = (jnp.arange(h, dtype=jnp.float32) - middle_y)[:, None]
    x = jnp.arange(w, dtype=jnp.float32) - middle_x
    x = x + shear * y
    y, x = y * jnp.exp(scale_y), x * jnp.exp(scale_x)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    turned_y, turned_x = cosine * y - sine * x, sine * y + cosine * x
    return turned_y + middle_y + h * shift_y, turned_x + middle_x + w * shift_x


def control_weights(length: int, smoothness: float) -> Float[Array, "length points"]:
    """Weights of control points at each pixel: Gaussian, 1.5 deviations apart, their squares adding up to 1."""
    apart = 1.5 * smoothness
    points = math.ceil(1 / apart) + 3
    centres = (jnp.arange(points) - (points - 1) / 2) * apart
    pixels = (jnp.arange(length) + 0.5) / length - 0.5
    weights = jnp.exp(-0.5 * ((pixels[:, None] - centres) / smoothness) ** 2)
    return weights / jnp.linalg.norm(weights, axis=1, keepdims=True)
