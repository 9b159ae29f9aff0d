"""From the command line to a config: dataclasses are flags, and a choice's flags are its factory's own keywords.

The command line is read twice: first the choices (``--meta.learner maml``), then the flags that the chosen factories
have (``--meta.learner.inner-lr 0.1``), with their defaults and descriptions in ``--help``.
"""

import contextlib
import dataclasses
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from rich import get_console
from rich.markup import escape

from experiments.words import (
    Chosen,
    choices_in,
    dashes,
    join_path,
    keywords_below,
    long_forms,
    read_choices,
    switches,
)
from metarep_jax.choices import REQUIRED, Choice, Keyword, WeightedChoices, is_callable_type, parts_of

Config = TypeVar("Config")
console = get_console()  # the one that progress bars and log lines write to


def parse(
    config: type[Config], description: str | None, default: Config | None = None, args: Sequence[str] | None = None
) -> Config:
    """The config from the command line (or ``args``); a value that a config refuses ends with its message.

    A config class may have ``shorthands``, a dict from a flag to the one that it stands for: {"learner":
    "meta.learner"}.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        start: Any = config() if default is None else default
        words = long_forms(words, getattr(config, "shorthands", {}))
        words = switches(words)
        names = {f"{path}.name": path for path, _ in choices_in(start)}
        words = long_forms(words, names)
        chosen = read_choices(words, start)
        flags: Any = _flags_of(start, chosen, getattr(config, "shorthands", {}))
        given = tyro.cli(type(flags), prog=program(), description=description, args=words, default=flags)
        return _config_of(given, start, chosen)
    except ValueError as error:
        print_error(error)
        raise SystemExit(2) from error


def program() -> str:
    """How this program is started, for the first line of its help."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec is not None else Path(sys.argv[0]).name


def parse_preset(
    presets: dict[str, tuple[str, Config]], description: str | None, args: Sequence[str] | None = None
) -> Config:
    """The config of the preset that the first argument names, with the flags that follow."""
    words = list(sys.argv[1:] if args is None else args)
    listed = "\n".join(f"    {name}: {says}" for name, (says, _) in presets.items())
    if not words or words[0] not in presets:
        asked = not words or words[0] in ("-h", "--help")
        console.print(f"{description}\nPresets, the first argument; PRESET --help lists its flags:\n\n{listed}")
        if words and not asked:
            print_error(ValueError(f"unknown preset {words[0]!r}; there are: {', '.join(presets)}"))
        raise SystemExit(0 if words and asked else 2)
    return parse(type(presets[words[0]][1]), description, presets[words[0]][1], words[1:])


def print_error(error: BaseException) -> None:
    """Prints an error's message."""
    console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)


def _flags_of(config: Any, chosen: Chosen, shorthands: dict[str, str], path: str = "") -> Any:
    """The config as flags: a subclass instance in whose place choices stand as dataclasses of their keywords."""
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
            flags = _flags_of(value, chosen, shorthands, place)
            fields.append((field.name, type(flags), dataclasses.field(default=flags)))
        else:
            fields.append((field.name, field.type, dataclasses.field(default=value)))
    changed = [each for each in fields if each[2].default is not getattr(config, each[0])]
    unchecked = {"__post_init__": lambda self: None, "__doc__": kind.__doc__, "__module__": kind.__module__}
    made = dataclasses.make_dataclass(kind.__name__, changed, bases=(kind,), frozen=True, namespace=unchecked)
    return made(**{name: field.default for name, _, field in fields})


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
    return ", ".join(sorted(kind.known)) + f", or your own as my_module:my_{kind.what.replace(' ', '_')}"


def flag_type(keyword: Keyword) -> Any:
    """What a flag of the keyword takes: its annotation without functions, or else the type of its default."""
    plain = [part for part in parts_of(keyword.type) if not is_callable_type(part)]
    if not plain or Any in plain:
        default = keyword.default
        return str | None if default is None else str if default is REQUIRED else type(default)
    return typing.Union[tuple(plain)]  # noqa: UP007 (of a tuple)


def _config_of(flags: Any, start: Any, chosen: Chosen, path: str = "") -> Any:
    """The inverse of ``_flags_of``: the config with its choices, checked by its classes."""
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
            values[field.name] = _config_of(value, before, chosen, place)
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


def _weighted(kind: type[Choice], name: str, flags: Any) -> tuple[Choice, float]:
    keywords = {each.name: getattr(flags, each.name) for each in dataclasses.fields(flags)}
    weight = keywords.pop("weight")
    return kind(name, **keywords), weight
