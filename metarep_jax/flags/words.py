"""The words of a command line, read once for the choices that they name: which factories' keywords are then flags."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from metarep_jax.choices import Choice, Keyword, WeightedChoices, no_setting
from metarep_jax.files import check_on_disk

Chosen = dict[str, tuple[type[Choice], str, dict[str, Any]]]  # by path: the kind, the name, and values beside defaults


def read_choices(words: Sequence[str], config: Any) -> Chosen:
    """The choices of a config as the words name them, by the paths of their flags.

    Raises:
      ValueError: for a name that does not exist, or a flag below a choice that its factory has no keyword for.
    """
    chosen: Chosen = {}
    for path, choice in choices_in(config):
        several = isinstance(choice, WeightedChoices)
        chosen |= _members_named(words, path, choice) if several else _named(words, path, choice)
    for path, (kind, name, _) in chosen.items():
        _refuse_unknown(words, path, kind, name)
    return chosen


def check_paths(words: Sequence[str]) -> None:
    """Raises ValueError for flags whose value is an address such as gs://bucket/run, whatever they are for."""
    flag = "the argument"
    for word in words:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        flag = name or flag
        if equals or not name:
            check_on_disk(value, flag)


def choices_in(config: Any, path: str = "") -> Iterator[tuple[str, Choice | WeightedChoices]]:
    """The choices of a config, with the paths of their flags, such as ``meta.learner``."""
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), join_path(path, field.name)
        if isinstance(value, Choice | WeightedChoices):
            yield place, value
        elif dataclasses.is_dataclass(value):
            yield from choices_in(value, place)


def long_forms(words: Sequence[str], shorthands: dict[str, str]) -> list[str]:
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


def switches(words: Sequence[str]) -> list[str]:
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


def keywords_below(kind: type[Choice], name: str, path: str) -> dict[str, Keyword]:
    """The keywords of a choice, and the weight of one of several."""
    weight = Keyword("weight", float, 1.0, f"Weight of this {kind.what}.")
    several = path.rpartition(".")[2] == member_name(name) and "." in path and kind.weighted
    return ({"weight": weight} if several else {}) | kind.settings_of(name)


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
        named[f"{path}.{member_name(name)}"] = (choices.kind, name, values)
    return named


def _values(words: Sequence[str], path: str) -> list[str]:
    """The words after the flag of a path, up to the next flag."""
    values: list[str] = []
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == f"--{path}":
            values = [value] if equals else list(itertools.takewhile(lambda w: not w.startswith("--"), words[i + 1 :]))
    return values


def member_name(name: str) -> str:
    """How a member is called in flags: by its name, or the last part of its dotted path."""
    return name.rpartition(":")[2]


def _refuse_unknown(words: Sequence[str], path: str, kind: type[Choice], name: str) -> None:
    """Raises ValueError for a flag below a choice that its factory has no keyword for; lists those that it has."""
    there, prefix = keywords_below(kind, name, path), f"--{dashes(path)}."
    known = {"name", *map(dashes, there)} | {f"no-{dashes(key)}" for key, of in there.items() if of.type is bool}
    for word in words:
        flag = dashes(word.partition("=")[0])
        if flag.startswith(prefix) and flag.removeprefix(prefix) not in known:
            keyword = flag.removeprefix(prefix)
            raise ValueError(no_setting(kind.what, name, keyword, tuple(there), lambda key: prefix + dashes(key)))


def join_path(path: str, name: str) -> str:
    """The path of a field below a path: ``meta``, ``learner`` → ``meta.learner``."""
    return f"{path}.{name}" if path else name


def dashes(name: str) -> str:
    """A name as a flag spells it."""
    return name.replace("_", "-")
