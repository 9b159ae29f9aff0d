"""From the command line to a config: dataclasses are flags, and a choice's flags are its factory's own keywords.

The command line is read twice: first the choices (``--meta.learner maml``), then the flags that the chosen factories
have (``--meta.learner.inner-lr 0.1``), with their defaults and descriptions in ``--help``.
"""

import dataclasses
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

import tyro
from rich import get_console
from rich.markup import escape

from metarep_jax.choices import REQUIRED, Choice, Keyword, is_callable_type, no_setting, parts_of

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
        chosen = {path: _named(words, path, choice) for path, choice in choices_in(start)}
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


def choices_in(config: Any, path: str = "") -> Iterator[tuple[str, Choice]]:
    """The choices of a config, with the paths of their flags, such as ``meta.learner``."""
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), _join(path, field.name)
        if isinstance(value, Choice):
            yield place, value
        elif dataclasses.is_dataclass(value):
            yield from choices_in(value, place)


Chosen = dict[str, tuple[type[Choice], str, dict[str, Any]]]  # by path: the kind, the name, and values beside defaults


def _named(words: Sequence[str], path: str, choice: Choice) -> tuple[type[Choice], str, dict[str, Any]]:
    """Which factory a choice's flag names, or else the config's own with its values."""
    name = choice.name
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in (f"--{path}", f"--{path}.name"):
            name = value if equals else words[i + 1] if i + 1 < len(words) else name
    type(choice).factory_of(name)
    return type(choice), name, dict(choice.keywords) if name == choice.name else {}


def _refuse_unknown(words: Sequence[str], path: str, kind: type[Choice], name: str) -> None:
    """Raises ValueError for a flag below a choice that its factory has no keyword for; lists those that it has."""
    there, prefix = kind.settings_of(name), f"--{_dashes(path)}."
    known = {"name", *map(_dashes, there)} | {f"no-{_dashes(key)}" for key, of in there.items() if of.type is bool}
    for word in words:
        flag = _dashes(word.partition("=")[0])
        if flag.startswith(prefix) and flag.removeprefix(prefix) not in known:
            keyword = flag.removeprefix(prefix)
            raise ValueError(no_setting(kind.what, name, keyword, tuple(there), lambda key: prefix + _dashes(key)))


def _flags_of(config: Any, chosen: Chosen, shorthands: dict[str, str], path: str = "") -> Any:
    """The config as flags: a subclass instance in whose place choices stand as dataclasses of their keywords."""
    kind = type(config)
    fields = []
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), _join(path, field.name)
        if isinstance(value, Choice):
            shorts = tuple(f"--{short}" for short, of in shorthands.items() if of == place)
            flags = _choice_flags(*chosen[place], shorts)
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


def _choice_flags(kind: type[Choice], name: str, values: dict[str, Any], shorts: tuple[str, ...]) -> Any:
    """A dataclass of the name and the keywords of a choice."""
    names = ", ".join(sorted(kind.known)) + f", or your own as my_module:my_{kind.what.replace(' ', '_')}"
    help_of_name = f"Which {kind.what}: {names}. The flags below are those of {name}."
    fields: list[Any] = [
        ("name", Annotated[str, tyro.conf.arg(name="", help=help_of_name, aliases=shorts)], dataclasses.field())
    ]
    defaults: dict[str, Any] = {"name": name}
    for keyword in kind.settings_of(name).values():
        hint = Annotated[flag_type(keyword), tyro.conf.arg(help=keyword.help or None)]
        default = values.get(keyword.name, keyword.default)
        if default is REQUIRED:
            default = tyro.MISSING
        fields.append((keyword.name, hint, dataclasses.field()))
        defaults[keyword.name] = default
    made = dataclasses.make_dataclass(f"{kind.__name__}Flags", fields, frozen=True)
    return made(**defaults)


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
        elif dataclasses.is_dataclass(before):
            values[field.name] = _config_of(value, before, chosen, place)
        else:
            values[field.name] = value
    return type(start)(**values)


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
