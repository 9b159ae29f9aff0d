"""A config as flags, and back: a choice's flags are its factory's own keywords."""

import contextlib
import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import tyro

from metarep_jax.choices import REQUIRED, Choice, Keyword, WeightedChoices, is_callable_type, parts_of
from metarep_jax.flags.words import Chosen, dashes, join_path, keywords_below


def build_flags(config: Any, chosen: Chosen, shorthands: dict[str, str], path: str = "") -> Any:
    """The config as flags: a subclass instance in whose place choices stand as dataclasses of their keywords.

    Args:
      config: with the defaults.
      chosen: the choices that the command line names, as ``read_choices`` gives them.
      shorthands: from a flag to the one that it stands for.
      path: of the config's own flags, such as ``meta``.
    """
    kind = type(config)
    fields = []
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), join_path(path, field.name)
        if isinstance(value, Choice):
            shorts = tuple(f"--{short}" for short, of in shorthands.items() if of == place)
            flags = _choice_flags(*chosen[place], place, shorts)
            fields.append((field.name, type(flags), dataclasses.field(default=flags)))
        elif isinstance(value, WeightedChoices):
            shorts = tuple(f"--{short}" for short, of in shorthands.items() if of == place)
            flags = _members_flags(value, chosen, place, shorts)
            fields.append((field.name, type(flags), dataclasses.field(default=flags)))
        elif dataclasses.is_dataclass(value):
            flags = build_flags(value, chosen, shorthands, place)
            fields.append((field.name, type(flags), dataclasses.field(default=flags)))
        else:
            fields.append((field.name, field.type, dataclasses.field(default=value)))
    changed = [each for each in fields if each[2].default is not getattr(config, each[0])]
    unchecked = {"__post_init__": lambda self: None, "__doc__": kind.__doc__, "__module__": kind.__module__}
    made = dataclasses.make_dataclass(kind.__name__, changed, bases=(kind,), frozen=True, namespace=unchecked)
    return made(**{name: field.default for name, _, field in fields})


def build_config(flags: Any, start: Any, chosen: Chosen, path: str = "") -> Any:
    """The inverse of ``build_flags``: the config with its choices, checked by its classes.

    Args:
      flags: what the command line says.
      start: the config of which the flags were built.
      chosen, path: as there.

    Raises:
      ValueError: for a value that a class refuses; names its flag as it is typed.
    """
    values = {}
    for field in dataclasses.fields(start):
        value, before, place = getattr(flags, field.name), getattr(start, field.name), join_path(path, field.name)
        if isinstance(before, Choice):
            kind, name, _ = chosen[place]
            keywords = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
            with named_flags(place):
                values[field.name] = kind(keywords.pop("name") or name, **keywords)
        elif isinstance(before, WeightedChoices):
            members = [(at, each) for at, each in chosen.items() if at.rpartition(".")[0] == place]
            with named_flags(place):
                values[field.name] = type(before)(
                    tuple(
                        _weighted(kind, name, getattr(value, at.rpartition(".")[2])) for at, (kind, name, _) in members
                    )
                )
        elif dataclasses.is_dataclass(before):
            values[field.name] = build_config(value, before, chosen, place)
        else:
            values[field.name] = value
    with named_flags(path, type(start).__name__):
        return type(start)(**values)


@contextlib.contextmanager
def named_flags(path: str, kind: str = "") -> Iterator[None]:
    """Names flags in messages of what a config refuses, as they are typed: "FitConfig.steps must" becomes
    "--train.steps must"; other messages about a choice begin with its flag."""
    try:
        yield
    except ValueError as error:
        message, prefix = str(error), f"--{dashes(path)}" if path else "-"
        if kind:
            field = re.match(rf"(?:{kind}|[a-z]+)\.(\w+)(?= )", message)
            message = f"{prefix}.{dashes(field[1])}{message[field.end() :]}".replace("-.", "--") if field else message
        elif "--" not in message:
            message = f"{prefix}: {message}"
        raise ValueError(message) from error


def flag_type(keyword: Keyword) -> Any:
    """What a flag of the keyword takes: its annotation without functions, or else the type of its default."""
    plain = [part for part in parts_of(keyword.type) if not is_callable_type(part)]
    if not plain or Any in plain:
        default = keyword.default
        return str | None if default is None else str if default is REQUIRED else type(default)
    return typing.Union[tuple(plain)]  # noqa: UP007 (of a tuple)


def _choice_flags(
    kind: type[Choice], name: str, values: dict[str, Any], path: str, shorts: tuple[str, ...] = ()
) -> Any:
    """A dataclass of the name, where it is one, and the keywords of a choice."""
    help_of_name = f"Which {kind.what}: {_known(kind)}. The flags below are those of {name}."
    fields: list[Any] = []
    defaults: dict[str, Any] = {}
    if not kind.weighted:
        named = Annotated[str, tyro.conf.arg(name="", help=help_of_name, aliases=shorts)]
        fields.append(("name", named, dataclasses.field()))
        defaults["name"] = name
    for keyword in keywords_below(kind, name, path).values():
        hint = Annotated[flag_type(keyword), tyro.conf.arg(help=keyword.help or None)]
        default = values.get(keyword.name, keyword.default)
        fields.append((keyword.name, hint, dataclasses.field()))
        defaults[keyword.name] = tyro.MISSING if default is REQUIRED else default
    made = dataclasses.make_dataclass(f"{kind.__name__}Flags", fields, frozen=True)
    return made(**defaults)


def _members_flags(choices: WeightedChoices, chosen: Chosen, path: str, shorts: tuple[str, ...] = ()) -> Any:
    """A dataclass of the names of several choices, and of each one's flags."""
    kind = choices.kind
    members = {place: each for place, each in chosen.items() if place.rpartition(".")[0] == path}
    help_of_names = f"Which {kind.what}s are summed, one or several: {_known(kind)}."
    named = Annotated[tuple[str, ...], tyro.conf.arg(name="", help=help_of_names, aliases=shorts)]
    fields: list[Any] = [("members", named, dataclasses.field())]
    defaults: dict[str, Any] = {"members": tuple(name for _, name, _ in members.values())}
    for place, each in members.items():
        member = place.rpartition(".")[2]
        flags = _choice_flags(*each, place)
        fields.append((member, type(flags), dataclasses.field()))
        defaults[member] = flags
    made = dataclasses.make_dataclass(f"{type(choices).__name__}Flags", fields, frozen=True)
    return made(**defaults)


def _known(kind: type[Choice]) -> str:
    also = f", {kind.also}" if kind.also else ""
    return ", ".join(sorted(kind.known)) + f"{also}, or your own as my_module:my_{kind.what.replace(' ', '_')}"


def _weighted(kind: type[Choice], name: str, flags: Any) -> tuple[Choice, float]:
    keywords = {each.name: getattr(flags, each.name) for each in dataclasses.fields(flags)}
    weight = keywords.pop("weight")
    return kind(name, **keywords), weight
