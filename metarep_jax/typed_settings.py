"""Settings hold what their annotations say: a value of another type is refused where it is given."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Settings:
    """Base of frozen dataclasses whose fields are checked against their annotations when one is made.

    Raises:
      ValueError: for a value of another type; names the field, its type and the value.
    """

    def __post_init__(self):
        hints = _hints_of(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # a scalar of numpy's, which JSON does not write
                value = value.item()
                object.__setattr__(self, field.name, value)
            check_type(f"{type(self).__name__}.{field.name}", value, hints[field.name])


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raises ValueError when ``value``, of the setting called ``name``, is not of the annotated type."""
    if not fits(value, hint):
        raise ValueError(f"{name} takes {describe_type(hint)}, got {value!r}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type: of numbers, text, literals, dataclasses, and tuples and unions of them.

    Whole numbers are fractions too, and truth values no numbers. Annotations of anything else fit every value, and
    literals every value of their kind.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return any(fits(value, type(part)) for part in parts)  # whoever reads it says which there are
    if origin is tuple:
        each = parts[:1] * len(value) if parts[1:] == (...,) and isinstance(value, tuple) else parts
        return isinstance(value, tuple) and len(value) == len(each) and all(map(fits, value, each))
    if hint in (None, type(None)):
        return value is None
    if hint in KINDS:
        return isinstance(value, KINDS[hint]) and isinstance(value, bool) <= (hint is bool)
    return isinstance(value, hint) if inspect.isclass(hint) and dataclasses.is_dataclass(hint) else True


def describe_type(hint: Any) -> str:
    """An annotation in words, such as "a whole number or None"."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe_type, parts))
    if origin is typing.Literal:
        return " or ".join(map(repr, parts))
    if origin is tuple:
        each = ", ".join(describe_type(part) for part in parts if part is not ...)
        return f"a tuple ({each}{', …' * (parts[1:] == (...,))})"
    return WORDS.get(hint) or getattr(hint, "__name__", str(hint))


KINDS: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real, str: str, bool: bool, Path: str | Path}
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    Path: "a path",
    type(None): "None",
}


@functools.lru_cache(maxsize=256)
def _hints_of(kind: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)
