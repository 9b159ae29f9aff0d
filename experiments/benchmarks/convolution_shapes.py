"""The convolutions of an encoder, read off the encoder itself, and what they cost by the direct algorithm."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from metarep_jax.encoders.convolution import pad_amounts


class Convolution(NamedTuple):
    """One convolution of an image: what goes in, how, and what comes out."""

    image: tuple[int, ...]  # h, w, channels
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]  # zeros before and after, of rows and of columns
    filters: int

    @property
    def out(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the result."""
        rows, columns = (
            (side + sum(pad) - size) // step + 1
            for side, pad, size, step in zip(self.image[:2], self.pads, self.kernel, self.strides)
        )
        return rows, columns, self.filters

    @property
    def words(self) -> str:
        """``32×32×64 3×3 → 64``, with ``/2`` for strides of 2; of zeros that are not added alike at both ends."""
        image, kernel = "×".join(map(str, self.image)), "×".join(map(str, self.kernel))
        stride = f" /{self.strides[0]}" if max(self.strides) > 1 else ""
        uneven = any(before != after for before, after in self.pads)
        return f"{image} {kernel}{stride} → {self.filters}{' (padded at the end)' if uneven else ''}"

    @property
    def gflop(self) -> float:
        """Of one pass (forward, or one of the two gradients) of one image, each product and sum counted."""
        rows, columns, filters = self.out
        return 2e-9 * rows * columns * filters * self.kernel[0] * self.kernel[1] * self.image[2]


def convolutions_of(encoder: nn.Module, image: Sequence[int]) -> list[Convolution]:
    """Every convolution that ``encoder`` computes of an image [h, w, c], in their order; nothing is computed.

    Args:
      encoder: made with ``conv="lax"``, whose convolutions are Linen's own.
      image: its shape.

    Raises:
      ValueError: where there are none to be seen.
    """
    found: list[Convolution] = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module: Any = context.module
        if isinstance(module, nn.Conv) and context.method_name == "__call__":
            found.append(_convolution(module, args[0].shape[1:]))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image), jnp.float32))
    if not found:
        raise ValueError(f"{type(encoder).__name__} has no convolution of Linen's; make it with conv='lax'")
    return found


def _convolution(module: Any, image: Sequence[int]) -> Convolution:
    kernel = tuple(module.kernel_size)
    strides = (module.strides,) * 2 if isinstance(module.strides, int) else tuple(module.strides or (1, 1))
    pads = pad_amounts(image[:2], kernel, strides, module.padding)
    return Convolution(tuple(image), kernel, strides, pads, module.features)
