"""Meta-representation learning in JAX: learn features without labels, meta-learn how to adapt them, distil them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarep_jax.model import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Imports ``load`` when it is first asked for, so that importing a room does not import them all."""
    if name == "load":
        from metarep_jax.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
