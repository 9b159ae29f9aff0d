"""The convolution layer: parameters of ``nn.Conv``, and a choice of how it is computed."""

from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders.convolution.bilinear import convolve
from metarep_jax.encoders.convolution.geometry import geometry_of
from metarep_jax.encoders.convolution.parameters import ConvParameters
from metarep_jax.encoders.convolution.patches import PatchConv


class PassesConv(ConvParameters):
    """A 2-D convolution whose three passes are each computed the fastest way for their shape on a CPU.

    3×3 kernels of stride 1 by Winograd's tiles (``winograd``), all else by the direct algorithm (``direct``). Names,
    shapes and initial values of the parameters are those of ``nn.Conv``, and so are its results, up to rounding.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n oh ow out"]:
        """The convolution of ``x``."""
        x, kernel, bias = self.promoted(x, x.shape[-1])
        geometry = geometry_of(x.shape[1:3], self.kernel_size, self.strides, self.padding)
        y = convolve(x, kernel, geometry)
        return y if bias is None else y + bias


PassesConv.__name__ = "Conv"

LOWERINGS = {"passes": PassesConv, "patches": PatchConv, "lax": nn.Conv}


def conv_layer(name: str) -> Callable[..., nn.Module]:
    """The convolution that ``name`` stands for: "passes" (``PassesConv``), "patches" (``PatchConv``) or "lax"
    (``nn.Conv``)."""
    if name not in LOWERINGS:
        raise ValueError(f"unknown convolution {name!r}; there are: {', '.join(LOWERINGS)}")
    return LOWERINGS[name]
