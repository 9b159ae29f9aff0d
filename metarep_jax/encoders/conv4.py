"""Conv4, the few-shot literature's small network."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from metarep_jax.encoders.layers import Norm, PatchConv, as_image_float, conv_layer, keep_layer, max_pool


class Conv4(nn.Module):
    """Four blocks of a 3×3 convolution, a norm and ReLU, each halving the image: images [n, h, w, c] to [n, dim].

    ``downsample`` "stride" gives the convolutions stride 2 (MAML's Omniglot code; 28 pixels become 2); "pool" ends
    each block in a 2×2 max-pool (Vinyals et al. 2016; Prototypical Networks; 28 pixels become 1). ``readout``
    "flatten" keeps all positions of the last block as features, "mean" averages them.
    Raises ValueError for an unknown setting, and for images under 16 pixels a side with "pool".
    Source: Finn et al. 2017, https://arxiv.org/abs/1703.03400, section 5.2.
    """

    width: int = 64
    downsample: str = "stride"
    readout: str = "flatten"
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = jnp.float32
    mean: float = 0.0
    std: float = 1.0
    conv: str = "patches"

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "n h w c"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        for name, value, known in (
            ("downsample", self.downsample, ("stride", "pool")),
            ("readout", self.readout, ("flatten", "mean")),
        ):
            if value not in known:
                raise ValueError(f"Conv4: unknown {name} {value!r}; there are: {', '.join(known)}")
        if self.downsample == "pool" and min(x.shape[1:3]) < 16:
            raise ValueError(f"Conv4: four max-pools need 16 pixels a side; given {x.shape[1]}×{x.shape[2]}")
        stride = 2 if self.downsample == "stride" else 1
        x = as_image_float(x, self.mean, self.std, self.dtype)
        activate: Callable[[Array], Array] | None = None
        for block in range(4):
            layer = conv_layer(self.conv)
            conv = layer(self.width, (3, 3), strides=(stride, stride), use_bias=self.norm == "none", dtype=self.dtype)
            if isinstance(conv, PatchConv):
                x, matrix = conv.after(x, activate)
            else:
                x, matrix = conv(activate(x) if activate else x), None
            normalise = Norm(self.norm, axis_name=self.axis_name).fitted(x, mask, running, matrix)
            activate = partial(_activate, normalise, self.downsample == "pool")
            keep_layer(self, f"block{block + 1}", partial(activate, x))
        x = activate(x) if activate else x
        return x.reshape(x.shape[0], -1) if self.readout == "flatten" else x.mean((1, 2))


def _activate(normalise: Callable[[Array], Array], pool: bool, rows: Array) -> Array:
    rows = nn.relu(normalise(rows))
    return max_pool(rows) if pool else rows
