"""The heads between features and losses: projectors and predictors. Pretraining drops them when it is done."""

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders.norms import Norm, batch_moments


class Head(nn.Module):
    """Dense layers of ``widths`` units; each but the last with a norm and ReLU.

    ``last_norm`` normalises the last layer's outputs over the batch too, without scale and shift. ``axis_name``: the
    mapped axis whose devices share batch statistics; with ``running``, the hidden norms use their running averages.
    Computes in the number format of its rows; parameters and statistics are float32.
    """

    widths: tuple[int, ...]
    norm: str = "batch"
    last_norm: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, rows: Float[Array, "n dim"], running: bool = False) -> Float[Array, "n out"]:
        for width in self.widths[:-1]:
            rows = nn.Dense(width, use_bias=self.norm == "none", dtype=rows.dtype)(rows)
            rows = nn.relu(Norm(self.norm, axis_name=self.axis_name)(rows, running=running))
        rows = nn.Dense(self.widths[-1], use_bias=self.norm == "none", dtype=rows.dtype)(rows)
        if not self.last_norm:
            return rows
        return standardise(rows, None if self.is_initializing() else self.axis_name).astype(rows.dtype)


def standardise(rows: Float[Array, "n dim"], axis_name: str | None = None) -> Float[Array, "n dim"]:
    """Every column with mean 0 and variance 1 over the rows of all devices of ``axis_name``."""
    mean, var = batch_moments(rows, axis_name=axis_name)
    return (rows - mean) * jax.lax.rsqrt(var + 1e-5)
