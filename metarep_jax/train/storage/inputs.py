"""What a run was computed from: its data, its starting model, its teacher, each known by a digest."""

from collections.abc import Mapping
from typing import TypedDict

SAID = 10  # digits of a digest that a message shows


class Input(TypedDict):
    """``name`` in a person's words, such as "folder ~/birds, 1,200 images"; ``digest`` of all that it holds, as hex."""

    name: str
    digest: str


Inputs = Mapping[str, Input]


def check_same_inputs(before: Inputs | None, now: Inputs | None, what: str) -> None:
    """Raises ValueError when a run goes on from other data, another starting model or another teacher.

    Args:
      before: what it was begun on; None: begun before inputs were recorded, nothing is compared.
      now: what it is given now; None: not known, nothing is compared.
      what: names the run folder or the checkpoint.
    """
    if before is None or now is None:
        return
    for kind in sorted(before.keys() | now.keys()):
        old, new = before.get(kind), now.get(kind)
        if (old and old["digest"]) == (new and new["digest"]):
            continue
        if old and new and old["name"] == new["name"]:
            change = f"{kind} {old['name']} has changed since {what} was begun ({_short(old)} then, {_short(new)} now)"
        else:
            change = f"{what} was begun {_in_words(kind, old)}, now there is {_in_words(kind, new, 'no')}"
        raise ValueError(f"{change}; give another --run-folder, or what it was begun with")


def names_of(inputs: Inputs | None) -> dict[str, str]:
    """What the inputs are called: alike where they come from the same places."""
    return {kind: one["name"] for kind, one in (inputs or {}).items()}


def _in_words(kind: str, given: Input | None, absent: str = "without a") -> str:
    if given is None:
        return f"{absent} {kind}"
    return f"{'on ' if absent != 'no' else ''}{kind} {given['name']} ({_short(given)})"


def _short(given: Input) -> str:
    return f"digest {given['digest'][:SAID]}"
