"""Statistics of batch norm, taken anew over given inputs."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, PyTree, Shaped


def refit_statistics(
    encoder: nn.Module, variables: PyTree, inputs: Shaped[Array, "n ..."], *, batch: int = 256
) -> PyTree:
    """The encoder's variables, with the means of batch statistics over ``inputs`` as its running averages.

    Running averages of a training belong to what it saw (views, images with pixels dropped) and to weights of some
    steps ago; those of initial weights are 0 and 1. An encoder without statistics is returned as it is.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      variables: its Linen variables.
      inputs: [n, ...], what features will be computed of, in any order.
      batch: rows whose statistics are taken together; a remainder of ``n`` is left out.

    References:
      Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, https://arxiv.org/abs/2105.07576, section 3.
    """
    if not jax.tree.leaves(variables.get("batch_stats", {})):
        return variables
    size = min(batch, inputs.shape[0])
    batches = inputs.shape[0] // size
    spread = batches * jnp.arange(size)  # a batch's rows come from all over the inputs, which often lie by class
    total = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    for start in range(batches):
        total = jax.tree.map(jnp.add, total, _batch_statistics(encoder)(variables, inputs[spread + start]))
    return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf / batches, total)}


@lru_cache(maxsize=64)
def _batch_statistics(encoder: nn.Module) -> Any:
    """Compiled: a batch's own statistics, from how far it moves averages of 0 and of 1, whatever their momentum."""

    @jax.jit
    def statistics(variables: PyTree, inputs: Array) -> PyTree:
        def moved(start: float) -> PyTree:
            averages = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), variables["batch_stats"])
            given = {**variables, "batch_stats": averages}
            return encoder.apply(given, inputs, mutable=["batch_stats"])[1]["batch_stats"]

        return jax.tree.map(lambda zero, one: zero / (1 - (one - zero)), moved(0.0), moved(1.0))

    return statistics
