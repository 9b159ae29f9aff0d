"""Settings from signatures: a config names a factory and carries that factory's own keywords.

``LearnerConfig("maml", inner_lr=0.4)`` is a *choice* of one kind. What it may hold, with which types, defaults and
descriptions, is read off the factory: a user's own, by dotted path ``my_module:my_learner``, is no different from one
of the library's.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cattrs
import numpy as np

from metarep_jax.docstrings import argument_lines
from metarep_jax.typed_settings import check_type

REQUIRED = inspect.Parameter.empty  # in place of a default


class Keyword(NamedTuple):
    """One keyword of a factory: ``type`` as annotated, ``default`` or ``REQUIRED``, and its line of ``Args:``."""

    name: str
    type: Any
    default: Any
    help: str


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Choice:
    """A factory of one kind by name or dotted path, and those of its keywords that differ from their defaults.

    Hashable; equal when they build the same. A subclass is a kind: it says what its factories are called, which there
    are by name, and what the code that builds supplies itself (no setting then, and no flag).

    Raises:
      ValueError: for a name or keyword that does not exist; lists those that do.
    """

    name: str
    keywords: tuple[tuple[str, Any], ...]

    what: ClassVar[str] = "method"
    also: ClassVar[str] = ""  # names that are no list's, for help texts
    known: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    supplied: ClassVar[frozenset[str]] = frozenset()
    default: ClassVar[str] = ""
    weighted: ClassVar[bool] = False  # whether choices of this kind are summed with weights
    common: ClassVar[Callable[..., Any] | None] = None  # its keywords are settings beside any factory's own

    def __init__(self, name: str = "", keywords: Sequence[tuple[str, Any]] = (), **more: Any):
        name = name or type(self).default
        there = type(self).settings_of(name)
        values = {**dict(keywords), **more}
        for key in values:
            if key not in there:
                raise ValueError(no_setting(self.what, name, key, tuple(there)))
        values = {key: _typed(value, there[key].type) for key, value in values.items()}
        for key, value in values.items():
            check_type(f"the {self.what} {name}: {key}", value, there[key].type)
        if missing := [key for key, of in there.items() if of.default is REQUIRED and key not in values]:
            raise ValueError(f"the {self.what} {name} needs {', '.join(missing)}")
        differing = {key: value for key, value in values.items() if not _same(value, there[key].default)}
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "keywords", tuple(sorted(differing.items())))

    @classmethod
    def factory_of(cls, name: str) -> Callable[..., Any]:
        """The factory called ``name``, or at the dotted path ``module:attribute``.

        Raises:
          ValueError: for a name that is neither; lists what there is.
        """
        return find_factory(name, cls.known, cls.what)

    @classmethod
    def settings_of(cls, name: str) -> dict[str, Keyword]:
        """The keywords that a choice of that name may carry, in the signature's order."""
        own = keywords_of(cls.factory_of(name), cls.supplied)
        return own if cls.common is None else {**keywords_of(cls.common, frozenset()), **own}

    @property
    def factory(self) -> Callable[..., Any]:
        """The factory that is named."""
        return type(self).factory_of(self.name)

    @property
    def settings(self) -> dict[str, Any]:
        """Every keyword with its value, the factory's default where none was chosen."""
        chosen = dict(self.keywords)
        return {key: chosen.get(key, of.default) for key, of in type(self).settings_of(self.name).items()}

    def get(self, keyword: str, otherwise: Any = None) -> Any:
        """The value of a keyword; ``otherwise`` where the factory has no such keyword."""
        return self.settings.get(keyword, otherwise)

    def build(self, *args: Any, wanted: type | None = None, **supplied: Any) -> Any:
        """Calls the factory with the chosen keywords and with those of ``supplied`` that it has parameters for.

        Raises:
          ValueError: by the factory, for values out of range; or when it returns something else than a ``wanted``.
        """
        takes = inspect.signature(self.factory).parameters
        how = {key: value for key, value in supplied.items() if key in takes}
        result = self.factory(*args, **how, **{key: value for key, value in self.keywords if key in takes})
        if wanted is not None and not isinstance(result, wanted):
            raise ValueError(
                f"{self.what} {self.name} returned {type(result).__name__}, wanted is a "
                f"{wanted.__module__}.{wanted.__name__}"
            )
        return result

    def __repr__(self) -> str:
        chosen = "".join(f", {key}={value!r}" for key, value in self.keywords)
        return f"{type(self).__name__}({self.name!r}{chosen})"


@dataclasses.dataclass(frozen=True)
class WeightedChoices:
    """Choices of one kind with weights, of which a sum is made; none is named twice.

    Raises:
      ValueError: without any, for two of one name, or for a weight that is not positive.
    """

    members: tuple[tuple[Choice, float], ...]

    kind: ClassVar[type[Choice]] = Choice

    def __post_init__(self):
        names = [choice.name for choice, _ in self.members]
        if not names:
            raise ValueError(
                f"at least one {self.kind.what} is needed; there are: {', '.join(sorted(self.kind.known))}"
            )
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"the {self.kind.what} {', '.join(sorted(twice))} is named twice")
        for choice, weight in self.members:
            if not weight > 0:
                raise ValueError(f"the weight of the {self.kind.what} {choice.name} must be positive, got {weight}")

    def weight_of(self, name: str) -> float:
        """The weight of the member of that name; 0 where there is none."""
        return {choice.name: weight for choice, weight in self.members}.get(name, 0.0)


def find_factory(name: str, known: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    """The factory called ``name`` in ``known``, or at the dotted path ``module:attribute``.

    Raises:
      ValueError: for a name that is neither; lists what there is. ``what`` says what is looked for, such as "learner".
    """
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"unknown {what} {name!r}{hint}; there are: {', '.join(sorted(known))}; or give your own as "
            f"my_module:my_{what.replace(' ', '_')}"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{what} {name!r} cannot be loaded: {error}") from error


def no_setting(what: str, name: str, keyword: str, there: Sequence[str], spell: Callable[[str], str] = str) -> str:
    """The sentence about a keyword that a factory does not have; ``spell`` writes keywords, as flags for instance."""
    has = ", ".join(map(spell, there)) or "none"
    return f"the {what} {name} has no setting {spell(keyword)}; it has: {has}"


@functools.lru_cache(maxsize=512)
def keywords_of(factory: Callable[..., Any], supplied: frozenset[str]) -> dict[str, Keyword]:
    """The keywords of ``factory`` that are settings: not ``supplied`` by the builder, not bound, not functions.

    A keyword that takes nothing but a function cannot be written down: a factory of one's own gives it.

    Descriptions are the lines of its docstring's ``Args:``, such as "width: filters of the first block" or, of several
    keywords at once, "hidden, out: sizes of the two layers".
    """
    bound: set[str] = set()
    function: Any = factory
    while isinstance(function, functools.partial):
        bound |= set(function.keywords)
        function = function.func
    is_class = inspect.isclass(function)
    hints = typing.get_type_hints(function if is_class or inspect.isroutine(function) else type(function).__call__)
    left_out = supplied | bound | ({"parent", "name"} if is_class else {"name"})  # a Linen module brings these two
    described = argument_lines(inspect.getdoc(function) or "")
    return {
        parameter.name: Keyword(
            parameter.name,
            hints.get(parameter.name, Any),
            _hashable(parameter.default),
            described.get(parameter.name, ""),
        )
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.name not in left_out
        and not takes_only_functions(hints.get(parameter.name))
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY)
    }


def parts_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def is_callable_type(hint: Any) -> bool:
    """Whether an annotation is of functions."""
    return collections.abc.Callable in (hint, typing.get_origin(hint))


def takes_only_functions(hint: Any) -> bool:
    """Whether an annotation is of functions, perhaps None, and of nothing else."""
    parts = [part for part in parts_of(hint) if part is not type(None)]
    return bool(parts) and all(map(is_callable_type, parts))


def _hashable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _typed(value: Any, hint: Any) -> Any:
    """A value as a keyword of that type holds it: tuples for JSON's lists, paths for text."""
    takes_paths = Path in (hint, *typing.get_args(hint))
    return Path(value).expanduser() if takes_paths and isinstance(value, str | Path) else _hashable(value)


def _same(value: Any, default: Any) -> bool:
    if default is REQUIRED:
        return False
    return value is default or (value == default and isinstance(value, bool) == isinstance(default, bool))


def _is_choice(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Choice)


def _plain(choice: Choice) -> dict[str, Any]:
    """``{"name": …, keyword: value}`` with every keyword, so that a later default changes nothing that was saved."""
    return cattrs.unstructure({"name": choice.name, **choice.settings})


def _of_plain(plain: Mapping[str, Any], kind: type[Choice]) -> Choice:
    return kind(**plain)


def _is_weighted(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, WeightedChoices)


def _plain_members(choices: WeightedChoices) -> list[dict[str, Any]]:
    return [{"weight": weight, **_plain(choice)} for choice, weight in choices.members]


def _of_plain_members(plain: Sequence[Mapping[str, Any]], kind: type[WeightedChoices]) -> WeightedChoices:
    rest = [{key: value for key, value in each.items() if key != "weight"} for each in plain]
    return kind(tuple((kind.kind(**own), each["weight"]) for own, each in zip(rest, plain, strict=True)))


cattrs.register_unstructure_hook_func(_is_weighted, _plain_members)
cattrs.register_structure_hook_func(_is_weighted, _of_plain_members)
cattrs.register_unstructure_hook_func(_is_choice, _plain)
cattrs.register_structure_hook_func(_is_choice, _of_plain)
