"""Multi-layer perceptron: flat inputs to features."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from metarep_jax.encoders.layers import Norm, as_image_float, keep_layer


class MLP(nn.Module):
    """Dense layers with a norm and ReLU after each; the last layer's activations are the features.

    Two hidden layers of 40 units without norm are the sinusoid network of MAML (section 5.1).
    """

    widths: tuple[int, ...] = (256, 128, 64, 64)
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = jnp.float32
    mean: float = 0.0
    std: float = 1.0

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
