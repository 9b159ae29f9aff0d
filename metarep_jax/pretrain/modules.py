"""One module of several in training."""

from typing import Any

from flax import linen as nn


def trained(module: nn.Module, name: str, params: Any, state: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The module called ``name`` as in training: its output, and ``state`` with its batch statistics moved on."""
    variables = {"params": params[name], "batch_stats": state[name]}
    output, moved = module.apply(variables, *args, mutable=["batch_stats"], **kwargs)
    return output, {**state, name: moved.get("batch_stats", {})}
