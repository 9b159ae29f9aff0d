"""Norm layers with a scale, a shift and running averages of their own for each inner step.

A network's own are those of the first step, so that its parameters and averages can be handed on like any other's; the
later steps' are stacked beside them, [steps − 1, ...].
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

Leaves = dict[str, Array]  # by path, such as "encoder/Conv_0/kernel"


def split_norms(weights: Any) -> tuple[Leaves, Leaves]:
    """The leaves of ``weights``' "encoder" and "head" in two: all others, and the scales and shifts of norm layers."""
    leaves: Any = flatten_dict({room: weights[room] for room in ("encoder", "head")}, sep="/")
    layers = {path.removesuffix("/scale") for path in leaves if path.endswith("/scale")}
    norms = {f"{layer}/{name}" for layer in layers for name in ("scale", "bias")} & leaves.keys()
    others = {path: leaf for path, leaf in leaves.items() if path not in norms}
    return others, {path: leaves[path] for path in leaves if path in norms}


def later_steps(first: PyTree, steps: int) -> PyTree:
    """What the steps after the first of ``steps`` start from: copies of the first's; {} where there are none."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * (steps - 1)), first) if steps > 1 else {}


def at_step(first: PyTree, later: PyTree, step: int) -> PyTree:
    """Those of ``step``, 0 for the first."""
    return first if step == 0 else jax.tree.map(lambda leaf: leaf[step - 1], later)


def weights_at(params: Any, fast: Leaves, step: int) -> Any:
    """``{"encoder", "head"}`` of the ``fast`` leaves and of the scales and shifts of ``step``."""
    norms = at_step(split_norms(params)[1], params["rule"]["norms"], step)
    return {"encoder": {}, "head": {}, **unflatten_dict({**fast, **norms}, sep="/")}


def averages_at(state: Any, step: int) -> Any:
    """The state whose "encoder" is the running averages of ``step``."""
    return {**state, "encoder": at_step(state["encoder"], state["norms"], step)}


def moved_at(state: Any, step: int, outputs: Any) -> Any:
    """The state whose averages of ``step`` are those that the pass left that gave ``outputs``."""
    moved = outputs["state"]["encoder"]
    if step == 0:
        return {**state, "encoder": moved}
    return {**state, "norms": jax.tree.map(lambda leaf, new: leaf.at[step - 1].set(new), state["norms"], moved)}
