"""From the command line to a config: dataclasses are flags, and a choice's flags are its factory's own keywords.

The command line is read twice: first the choices (``--meta.learner maml``), then the flags that the chosen factories
have (``--meta.learner.inner-lr 0.1``), with their defaults and descriptions in ``--help``.
"""

import dataclasses
import itertools
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

import tyro
from rich import get_console
from rich.markup import escape

from metarep_jax.choices import REQUIRED, Choice, Keyword, WeightedChoices, is_callable_type, no_setting, parts_of

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
        words = _long_forms(words, getattr(config, "shorthands", {}))
        words = _switches(words)
        names = {f"{path}.name": path for path, _ in choices_in(start)}
        words = _long_forms(words, names)
        chosen: Chosen = {}
        for path, choice in choices_in(start):
            several = isinstance(choice, WeightedChoices)
            chosen |= _members_named(words, path, choice) if several else _named(words, path, choice)
        for path, (kind, name, _) in chosen.items():
            _refuse_unknown(words, path, kind, name)
        flags: Any = _flags_of(start, chosen, getattr(config, "shorthands", {}))
        return _config_of(tyro.cli(type(flags), description=description, args=words, default=flags), start, chosen)
    except ValueError as error:
        print_error(error)
        raise SystemExit(2) from error


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


def choices_in(config: Any, path: str = "") -> Iterator[tuple[str, Choice | WeightedChoices]]:
    """The choices of a config, with the paths of their flags, such as ``meta.learner``."""
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), _join(path, field.name)
        if isinstance(value, Choice | WeightedChoices):
            yield place, value
        elif dataclasses.is_dataclass(value):
            yield from choices_in(value, place)


Chosen = dict[str, tuple[type[Choice], str, dict[str, Any]]]  # by path: the kind, the name, and values beside defaults


def _named(words: Sequence[str], path: str, choice: Choice) -> Chosen:
    """Which factory a choice's flag names, or else the config's own with its values."""
    name = (_values(words, path) or [choice.name])[0]
    type(choice).factory_of(name)
    return {path: (type(choice), name, dict(choice.keywords) if name == choice.name else {})}


def _members_named(words: Sequence[str], path: str, choices: WeightedChoices) -> Chosen:
    """The same for each of several, whose flags lie below their own names: ``--loss.soft-targets.temperature``."""
    before = {choice.name: (choice, weight) for choice, weight in choices.members}
    named = {}
    for name in _values(words, path) or before:
        choices.kind.factory_of(name)
        choice, weight = before.get(name, (None, 1.0))
        values = {"weight": weight, **(dict(choice.keywords) if choice else {})}
        named[f"{path}.{_member(name)}"] = (choices.kind, name, values)
    return named


def _values(words: Sequence[str], path: str) -> list[str]:
    """The words after the flag of a path, up to the next flag."""
    values: list[str] = []
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == f"--{path}":
            values = [value] if equals else list(itertools.takewhile(lambda w: not w.startswith("--"), words[i + 1 :]))
    return values


def _member(name: str) -> str:
    """How a member is called in flags: by its name, or the last part of its dotted path."""
    return name.rpartition(":")[2]


def _refuse_unknown(words: Sequence[str], path: str, kind: type[Choice], name: str) -> None:
    """Raises ValueError for a flag below a choice that its factory has no keyword for; lists those that it has."""
    there, prefix = _keywords(kind, name, path), f"--{_dashes(path)}."
    known = {"name", *map(_dashes, there)} | {f"no-{_dashes(key)}" for key, of in there.items() if of.type is bool}
    for word in words:
        flag = _dashes(word.partition("=")[0])
        if flag.startswith(prefix) and flag.removeprefix(prefix) not in known:
            keyword = flag.removeprefix(prefix)
            raise ValueError(no_setting(kind.what, name, keyword, tuple(there), lambda key: prefix + _dashes(key)))


def _keywords(kind: type[Choice], name: str, path: str) -> dict[str, Keyword]:
    """The keywords of a choice, and the weight of one of several."""
    weight = Keyword("weight", float, 1.0, f"Weight of this {kind.what}.")
    several = path.rpartition(".")[2] == _member(name) and "." in path and kind.weighted
    return ({"weight": weight} if several else {}) | kind.settings_of(name)


def _flags_of(config: Any, chosen: Chosen, shorthands: dict[str, str], path: str = "") -> Any:
    """The config as flags: a subclass instance in whose place choices stand as dataclasses of their keywords."""
    kind = type(config)
    fields = []
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), _join(path, field.name)
        if isinstance(value, Choice):
            shorts = tuple(f"--{short}" for short, of in shorthands.items() if of == place)
            flags = _choice_flags(*chosen[place], place, shorts)
            fields.append((field.name, type(flags), dataclasses.field(default=flags)))
        elif isinstance(value, WeightedChoices):
            flags = _members_flags(value, chosen, place)
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
    for keyword in _keywords(kind, name, path).values():
        hint = Annotated[flag_type(keyword), tyro.conf.arg(help=keyword.help or None)]
        default = values.get(keyword.name, keyword.default)
        fields.append((keyword.name, hint, dataclasses.field()))
        defaults[keyword.name] = tyro.MISSING if default is REQUIRED else default
    made = dataclasses.make_dataclass(f"{kind.__name__}Flags", fields, frozen=True)
    return made(**defaults)


def _members_flags(choices: WeightedChoices, chosen: Chosen, path: str) -> Any:
    """A dataclass of the names of several choices, and of each one's flags."""
    kind = choices.kind
    members = {place: each for place, each in chosen.items() if place.rpartition(".")[0] == path}
    help_of_names = f"Which {kind.what}s are summed, one or several: {_known(kind)}."
    named = Annotated[tuple[str, ...], tyro.conf.arg(name="", help=help_of_names)]
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
        value, before, place = getattr(flags, field.name), getattr(start, field.name), _join(path, field.name)
        if isinstance(before, Choice):
            kind, name, _ = chosen[place]
            keywords = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
            values[field.name] = kind(keywords.pop("name") or name, **keywords)
        elif isinstance(before, WeightedChoices):
            members = [(at, each) for at, each in chosen.items() if at.rpartition(".")[0] == place]
            values[field.name] = type(before)(
                tuple(_weighted(kind, name, getattr(value, at.rpartition(".")[2])) for at, (kind, name, _) in members)
            )
        elif dataclasses.is_dataclass(before):
            values[field.name] = _config_of(value, before, chosen, place)
        else:
            values[field.name] = value
    return type(start)(**values)


def _weighted(kind: type[Choice], name: str, flags: Any) -> tuple[Choice, float]:
    keywords = {each.name: getattr(flags, each.name) for each in dataclasses.fields(flags)}
    weight = keywords.pop("weight")
    return kind(name, **keywords), weight


def _long_forms(words: Sequence[str], shorthands: dict[str, str]) -> list[str]:
    """The words with every shorthand, and every flag below one, spelled out."""
    spelled = []
    for word in words:
        flag, equals, value = word.partition("=")
        for short, long in shorthands.items():
            if flag == f"--{short}" or flag.startswith(f"--{short}."):
                flag = f"--{long}{flag.removeprefix(f'--{short}')}"
                break
        spelled.append(f"{flag}{equals}{value}")
    return spelled


def _switches(words: Sequence[str]) -> list[str]:
    """``--flag True`` and ``--flag=false`` as ``--flag`` and ``--no-flag``, which booleans are on a command line."""
    out: list[str] = []
    skip = False
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if skip:
            skip = False
            continue
        flag, equals, value = word.partition("=")
        said = value if equals else after
        if flag.startswith("--") and said.lower() in ("true", "false"):
            head, dot, last = flag.removeprefix("--").rpartition(".")
            out.append(flag if said.lower() == "true" else f"--{head}{dot}no-{last}")
            skip = not equals
        else:
            out.append(word)
    return out


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _dashes(name: str) -> str:
    return name.replace("_", "-")
