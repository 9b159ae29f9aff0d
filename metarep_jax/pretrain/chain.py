"""Modules in a row: an encoder, and the heads that only pretraining needs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.features import at_least_float32
from metarep_jax.pretrain.modules import trained


class Chain(NamedTuple):
    """Modules applied one after the other; params and state hold each one's under its name."""

    init: Callable[..., tuple[Any, Any]]  # (key, batch, encoder_params=None) -> params, state
    apply: Callable[[Any, Any, Array], tuple[dict[str, Array], Any]]  # (params, state, rows) -> outputs, moved state


def chain(**modules: nn.Module) -> Chain:
    """The modules in the order given; the first is called "encoder" and may start from trained variables.

    ``apply`` gives the output of every module under its name, in float32 where the modules compute in a shorter format:
    losses are not rounded to it. Norms use the statistics of its rows, and the moved
    state holds their running averages.
    """

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        keys = dict(zip(modules, jax.random.split(key, len(modules))))
        rows, variables = batch["inputs"][:2], {}
        for name, module in modules.items():
            if name == "encoder":
                variables[name] = encoder_params or module.init(keys[name], rows)
                rows = module.apply(variables[name], rows, running=True)
            else:
                rows, variables[name] = module.init_with_output(keys[name], rows)
        return split_variables(variables)

    def apply(params: Any, state: Any, rows: Array) -> tuple[dict[str, Array], Any]:
        outputs = {}
        for name, module in modules.items():
            rows, state = trained(module, name, params, state, rows)
            outputs[name] = at_least_float32(rows)
        return outputs, state

    return Chain(init, apply)


def apply_to_views(
    net: Chain, params: Any, state: Any, views: Shaped[Array, "views n *shape"]
) -> tuple[dict[str, Float[Array, "views n dim"]], Any]:
    """The chain's outputs for each of several views, and the moved state.

    Norms see the first two views as one batch, and all others (local crops, which look different) as another.
    """
    parts = []
    for some in (views[:2], views[2:]):
        if len(some):
            outputs, state = net.apply(params, state, some.reshape(-1, *some.shape[2:]))
            parts.append({name: rows.reshape(*some.shape[:2], -1) for name, rows in outputs.items()})
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts), state


def encoder_features(encoder: nn.Module) -> Callable[[Any, Any, Any], Any]:
    """``Objective.features`` where the representation is the encoder's: by running averages, so that a row's features
    do not depend on the other rows."""

    def features(params: Any, state: Any, inputs: Any) -> Any:
        return encoder.apply({"params": params["encoder"], "batch_stats": state["encoder"]}, inputs, running=True)

    return features
