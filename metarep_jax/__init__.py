"""Meta-representation learning in JAX: learn features without labels, meta-learn how to adapt them, distil them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarep_jax.data import DataConfig, Splits, load_splits, splits_from_arrays
    from metarep_jax.model import Model, load
    from metarep_jax.stages import Compute

__all__ = ["Compute", "DataConfig", "Model", "Splits", "load", "load_splits", "splits_from_arrays"]

_ROOMS = {
    "metarep_jax.data": ("DataConfig", "Splits", "load_splits", "splits_from_arrays"),
    "metarep_jax.model": ("Model", "load"),
    "metarep_jax.stages": ("Compute",),
}


def __getattr__(name: str) -> Any:
    """Imports a name's room when it is first asked for, so that importing one room does not import them all."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(room), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
