"""Multi-layer perceptron: flat inputs to features."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from metarep_jax.encoders.layers import Norm, PerChannel, as_image_float
from metarep_jax.encoders.named_layers import keep_layer
from metarep_jax.encoders.norms import NORMS, NormKind
from metarep_jax.encoders.settings import check_choices, check_positive


def mlp(
    *,
    width: int = 64,
    depth: int = 4,
    norm: NormKind = "batch",
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    axis_name: str | None = None,
    dtype: Any = jnp.float32,
) -> nn.Module:
    """A multi-layer perceptron on flattened inputs.

    Args:
      width: units of each layer.
      depth: layers.
      norm: the normalisation layers.
      mean: subtracted from images in [0, 1] or from flat inputs; one number, or one a channel.
      std: divides the centred inputs.
      axis_name: the mapped axis whose devices share batch statistics, or None.
      dtype: of the computation; parameters and statistics stay float32.

    Raises:
      ValueError: for a setting that does not exist or is not positive.
    """
    for keyword, value in (("width", width), ("depth", depth)):
        if value < 1:
            raise ValueError(f"MLP: {keyword} must be positive, got {value}")
    return MLP(widths=(width,) * depth, norm=norm, mean=mean, std=std, axis_name=axis_name, dtype=dtype)


class MLP(nn.Module):
    """Dense layers with a norm and ReLU after each; the last layer's activations are the features.

    Two hidden layers of 40 units without norm are the sinusoid network of MAML (section 5.1).
    """

    widths: tuple[int, ...] = (256, 128, 64, 64)
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = jnp.float32
    mean: PerChannel = 0.0
    std: PerChannel = 1.0
    takes = "images"

    def __post_init__(self) -> None:
        check_positive(self, "std", "widths")
        check_choices(self, norm=NORMS)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "n ..."], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        x = as_image_float(x, self.mean, self.std, self.dtype).reshape(x.shape[0], -1)
        for layer, width in enumerate(self.widths):
            x = nn.Dense(width, use_bias=self.norm == "none", dtype=self.dtype)(x)
            x = nn.relu(Norm(self.norm, axis_name=self.axis_name)(x, mask, running))
            keep_layer(self, f"layer{layer + 1}", lambda x=x: x)
        return x
