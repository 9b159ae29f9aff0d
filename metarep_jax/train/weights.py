"""The weights in a checkpoint, by themselves: to judge a training that goes on, was ended, or came to its end."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from metarep_jax.train.packing import check_digest, digest_of
from metarep_jax.train.trees import read_packed

KEY = re.compile(r"\['([^']*)'\]")


class Weights(NamedTuple):
    """Of a checkpoint: ``params`` (their average where the training kept one) and ``state``, nested dicts of numpy
    arrays, and the ``settings`` that were given to ``fit``: "optimiser", "fit", "seed" and "run"."""

    step: int
    settings: dict[str, Any]
    params: PyTree
    state: PyTree


def read_weights(folder: Path | str, step: int | None = None) -> Weights:
    """The weights of one checkpoint of a training; nothing on disk is changed, and the training may be under way.

    Args:
      folder: the one that was given to ``fit``.
      step: of the checkpoint; None: the latest.

    Raises:
      FileNotFoundError: when there is no checkpoint, or none of that step; says which there are.
      ValueError: when it is damaged, of several seeds, or of trees other than nested dicts.
    """
    place = Path(folder).absolute() / "checkpoints"
    there = sorted(int(found.name) for found in place.glob("*") if found.name.isdigit())
    if not there or step not in (None, *there):
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        hint = f"; there are: {', '.join(map(str, there))}" if there else ""
        raise FileNotFoundError(f"{folder} holds {wanted}{hint}")
    step = there[-1] if step is None else step
    leaves, meta = read_packed(place / str(step))
    check_digest("its settings", digest_of(meta["given"]), meta["given_digest"])
    settings = meta["given"]["settings"]
    if (seeds := settings["fit"]["seeds"]) != 1:
        raise ValueError(f"the checkpoint {place / str(step)} holds {seeds} seeds; weights are read of one")
    named = {name: leaf for (name, *_), leaf in zip(meta["leaves"], leaves, strict=True)}
    train = {part: _tree(named, f"[0]['train'].{part}", place / str(step)) for part in ("params", "average", "state")}
    return Weights(step, settings, train["average"] or train["params"], train["state"])


def _tree(named: dict[str, np.ndarray], prefix: str, place: Path) -> dict[str, Any]:
    """The leaves whose names begin with ``prefix``, as nested dicts."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        if not name.startswith(prefix):
            continue
        path = name.removeprefix(prefix)
        *above, last = KEY.findall(path) or [""]
        if KEY.sub("", path) or not last:
            raise ValueError(f"weights are read of nested dicts; in {place} there is also {name}")
        inner = tree
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = leaf
    return tree
