"""What a loss over the global batch needs of the other devices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


def gather_rows(rows: Shaped[Array, "n *shape"], axis_name: str | None) -> Shaped[Array, "all_n *shape"]:
    """All devices' rows, in device order; the identity without an axis. Differentiable: its transpose is a sum
    over devices, so averaging the devices' gradients gives the gradient of the mean loss."""
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def own_rows(local: int, axis_name: str | None) -> Int[Array, " n"]:
    """The numbers of this device's ``local`` rows among those of ``gather_rows``."""
    offset = 0 if axis_name is None else jax.lax.axis_index(axis_name) * local
    return offset + jnp.arange(local)


def mean_over(value: Array, axis_name: str | None) -> Array:
    """The mean of the devices' values; the identity without an axis."""
    return value if axis_name is None else jax.lax.pmean(value, axis_name)


def device_count(axis_name: str | None) -> int:
    """How many devices the axis has; 1 without one."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)
