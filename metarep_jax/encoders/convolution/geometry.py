"""What a convolution's shapes are, without its channels and its batch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax import lax

Padding = str | int | Sequence[Any]
Pair = tuple[int, int]


class Geometry(NamedTuple):
    """A 2-D convolution of images: hashable, and all that its passes must know beside their arrays."""

    image: Pair  # height and width of the input
    size: Pair  # of the kernel
    strides: Pair
    pads: tuple[Pair, Pair]  # zeros before and after each axis

    @property
    def out(self) -> Pair:
        """Height and width of the result."""
        sides = zip(self.image, self.size, self.strides, self.pads)
        height, width = ((n + sum(pad) - k) // step + 1 for n, k, step, pad in sides)
        return height, width


def geometry_of(image: Sequence[int], size: Sequence[int], strides: int | Sequence[int], padding: Padding) -> Geometry:
    """The geometry of a layer; ``strides`` and ``padding`` as ``nn.Conv`` takes them.

    Raises:
      ValueError: when the kernel does not fit into the image.
    """
    height, width = image
    steps = (strides, strides) if isinstance(strides, int) else (strides[0], strides[1])
    made = Geometry((height, width), (size[0], size[1]), steps, pad_amounts(image, size, steps, padding))
    if min(made.out) < 1:
        raise ValueError(f"a {size[0]}×{size[1]} kernel with padding {padding} does not fit into images {tuple(image)}")
    return made


def pad_amounts(
    image: Sequence[int], size: Sequence[int], strides: Sequence[int], padding: Padding
) -> tuple[Pair, Pair]:
    """Zeros before and after each of two axes; ``padding`` as in ``nn.Conv``: SAME, VALID, a number, or pairs."""
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(image, size, strides, padding)
    else:
        each = (padding, padding) if isinstance(padding, int) else tuple(padding)
        pads = [(pad, pad) if isinstance(pad, int) else pad for pad in each]
    (top, bottom), (left, right) = pads
    return (int(top), int(bottom)), (int(left), int(right))
