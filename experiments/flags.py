"""From the command line to a config: ``parse``, and of several presets ``parse_preset``.

The command line is read twice: first the choices (``--meta.learner maml``), then the flags that the chosen factories
have (``--meta.learner.inner-lr 0.1``), with their defaults and descriptions in ``--help``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich import get_console
from rich.markup import escape

from metarep_jax.flags import build_config, build_flags, check_paths, choices_in, long_forms, read_choices, switches

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
        check_paths(words)
        start: Any = config() if default is None else default
        words = long_forms(words, getattr(config, "shorthands", {}))
        words = switches(words)
        names = {f"{path}.name": path for path, _ in choices_in(start)}
        words = long_forms(words, names)
        chosen = read_choices(words, start)
        flags: Any = build_flags(start, chosen, getattr(config, "shorthands", {}))
        given = tyro.cli(type(flags), prog=program(), description=description, args=words, default=flags)
        return build_config(given, start, chosen)
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
