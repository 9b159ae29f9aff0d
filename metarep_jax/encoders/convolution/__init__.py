"""Convolutions, interchangeable with Flax's own, lowered by the shape, the device and who has the kernels."""

from metarep_jax.encoders.convolution.geometry import Geometry, geometry_of, pad_amounts
from metarep_jax.encoders.convolution.layer import LOWERINGS, PassesConv, conv_layer
from metarep_jax.encoders.convolution.patches import PatchConv, extract_patches, times_matrix

__all__ = [
    "LOWERINGS",
    "Geometry",
    "PassesConv",
    "PatchConv",
    "conv_layer",
    "extract_patches",
    "geometry_of",
    "pad_amounts",
    "times_matrix",
]
