"""One module of several in training, and means over what is unequally spread over devices."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from metarep_jax.pretrain.devices import mean_over


def trained(module: nn.Module, name: str, params: Any, state: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The module called ``name`` as in training: its output, and ``state`` with its batch statistics moved on."""
    variables = {"params": params[name], "batch_stats": state[name]}
    output, moved = module.apply(variables, *args, mutable=["batch_stats"], **kwargs)
    return output, {**state, name: moved.get("batch_stats", {})}


def weighted_mean(
    values: Float[Array, "*shape"], weight: Shaped[Array, "*shape"], axis_name: str | None = None
) -> Float[Array, ""]:
    """The mean of ``values`` where ``weight`` is 1 (not 0), over all devices; of none: 0.

    A device returns its own sum over the mean of the devices' counts: the average of what they return is the mean, and
    of their gradients its gradient, however unequally the values are spread.
    """
    weight = weight.astype(values.dtype)
    count = mean_over(weight.sum(), axis_name)
    return (values * weight).sum() / jnp.where(count > 0, count, 1)
