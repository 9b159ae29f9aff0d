"""Methods that a config names: by a name of the library, or by the dotted path of a factory of one's own."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Made = TypeVar("Made")


def named_factory(name: str, known: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    """The factory called ``name`` in ``known``, or at the dotted path ``module:attribute``.

    Raises:
      ValueError: for a name that is neither; lists what there is. ``what`` says what is looked for, such as "learner".
    """
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        names = ", ".join(sorted(known))
        raise ValueError(f"unknown {what} {name!r}; there are: {names}; or give your own as my_module:my_{what}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {name!r} cannot be loaded: {error}") from error


def call_with(factory: Callable[..., Any], *args: Any, wanted: type[Made], **settings: Any) -> Made:
    """``factory(*args, ...)`` with those of ``settings`` that are not None and that it has parameters for.

    Raises:
      ValueError: when it returns something else than a ``wanted``.
    """
    takes = inspect.signature(factory).parameters
    made = factory(*args, **{key: value for key, value in settings.items() if value is not None and key in takes})
    if not isinstance(made, wanted):
        raise ValueError(f"{factory} returned {type(made).__name__}, wanted a {wanted.__module__}.{wanted.__name__}")
    return made


def needs(factory: Callable[..., Any], setting: str) -> bool:
    """Whether ``factory`` cannot be called without ``setting``."""
    parameter = inspect.signature(factory).parameters.get(setting)
    return parameter is not None and parameter.default is parameter.empty
