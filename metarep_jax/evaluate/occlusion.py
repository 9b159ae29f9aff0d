"""What a model looks at: how much its answer loses when a square of the image is covered."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def occlusion_maps(
    answer: Callable[[Float[Array, "n h w c"]], Float[Array, "n way"]],
    images: Float[Array, "n h w c"],
    label: Int[Array, " n"],
    *,
    size: int = 7,
    stride: int = 2,
) -> Float[Array, "n h w"]:
    """For each pixel, the mean loss of log-probability of the true class, in nats, over the squares that cover it.

    A square is covered by the image's mean, in all images at once: where batch norm uses the batch's own statistics,
    the others then change in the same way. Positive where the answer rests on what is there.

    Args:
      answer: images to logits; of an adapted model.
      images: in [0, 1].
      label: the class whose probability is followed.
      size: side of the square, in pixels.
      stride: pixels between two positions.

    Raises:
      ValueError: for a square that does not fit the images, or a stride below 1.

    References:
      Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901, section 4.2.
    """
    height, width = images.shape[1:3]
    if not 1 <= size <= min(height, width) or stride < 1:
        raise ValueError(f"a square of {size} pixels by steps of {stride} does not fit images of {height}×{width}")

    def score(images: Array) -> Array:
        return jnp.take_along_axis(jax.nn.log_softmax(answer(images)), label[:, None], 1)[:, 0]

    fill = images.mean((1, 2), keepdims=True)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    corners = jnp.array(list(itertools.product(*(_starts(side, size, stride) for side in (height, width)))))
    whole = score(images)

    def loss(corner: Array) -> tuple[Array, Array]:
        top, left = corner
        square = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
        return square, whole - score(jnp.where(square[..., None], fill, images))

    squares, losses = jax.lax.map(loss, corners)
    covered = squares.astype(images.dtype)
    return jnp.einsum("shw,sn->nhw", covered, losses) / covered.sum(0)


def _starts(side: int, size: int, stride: int) -> list[int]:
    """Where squares begin along one side; the last one ends at the border, so that every pixel is covered."""
    return sorted({*range(0, side - size + 1, stride), side - size})
