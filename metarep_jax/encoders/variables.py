"""Linen variables as stages keep and hand them on."""

import jax
from flax import linen as nn
from jaxtyping import Array, PyTree


def split_variables(modules: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
    """Linen variables by module to ``(params, state)`` by module; modules without statistics get ``{}``."""
    params = {name: variables.get("params", {}) for name, variables in modules.items()}
    return params, {name: variables.get("batch_stats", {}) for name, variables in modules.items()}


def encoder_variables(params: PyTree, state: PyTree) -> PyTree:
    """The encoder's Linen variables out of any stage's ``params`` and ``state``: what one stage hands to the next."""
    return {"params": params["encoder"], "batch_stats": state["encoder"]}


def count_parameters(params: PyTree) -> int:
    """The number of scalars in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def check_encoder_variables(module: nn.Module, variables: PyTree, inputs: Array) -> None:
    """Raises ValueError when handed-over ``variables`` do not fit ``module`` on ``inputs`` [n, ...]."""
    wanted = jax.eval_shape(module.init, jax.random.key(0), inputs)
    flat = [
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree["params"])}
        for tree in (wanted, variables)
    ]
    for path in sorted(flat[0].keys() | flat[1].keys()):
        want, got = flat[0].get(path), flat[1].get(path)
        if want != got:
            raise ValueError(
                f"the given encoder parameters do not fit this encoder: {path} has shape {got}, wanted {want}. "
                "Use the encoder settings that they were trained with"
            )
