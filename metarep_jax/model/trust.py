"""Code that a saved model names runs only where the caller allows it."""

from collections.abc import Mapping, Sequence
from typing import Any


def refuse_strangers(plain: Mapping[str, Any], place: Any, allow: Sequence[str] | str = ()) -> None:
    """Raises ValueError when plain values name a dotted path whose module is not in ``allow``; imports nothing.

    Args:
      plain: of a model's ``spec.json``.
      place: where they were read, for the message.
      allow: modules or packages, such as ``["my_module"]``; a package allows its submodules.
    """
    allowed = (allow,) if isinstance(allow, str) else tuple(allow)
    for path in _paths(plain):
        module = path.partition(":")[0]
        if not any(module == one or module.startswith(f"{one}.") for one in allowed):
            raise ValueError(
                f"{place} names {path!r}: loading it would run the code of the module {module!r}. If you trust it, "
                f"allow it: load(folder, allow=[{module!r}])"
            )


def modules_named(plain: Any) -> tuple[str, ...]:
    """The modules that plain values of a config name by dotted paths: who named them oneself may ``allow`` them."""
    return tuple(dict.fromkeys(path.partition(":")[0] for path in _paths(plain)))


def _paths(tree: Any) -> list[str]:
    """All names with a colon: what is before it would be imported, whether or not what follows can be an attribute."""
    if isinstance(tree, Mapping):
        name = tree.get("name")
        own = [name] if isinstance(name, str) and ":" in name else []
        return own + [path for value in tree.values() for path in _paths(value)]
    return [path for value in tree for path in _paths(value)] if isinstance(tree, list | tuple) else []
