"""Accuracies episode by episode, kept beside a result, so that rows can be compared on the same episodes."""

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarep_jax.files import atomic_write

FILE = "episodes.npz"
Values = dict[str, dict[str, Float[np.ndarray, " episodes"]]]  # accuracies in %, by row and column


class Episodes(NamedTuple):
    """``values`` by row and column, and what the episodes follow from: they are the same where this is."""

    values: Values
    source: dict[str, str]  # "data" (a digest), "protocol", "seed"


def save_episodes(folder: Path, values: Mapping[str, Mapping[str, Float[np.ndarray, " n"]]], **source: str) -> None:
    """Writes ``FILE`` to the folder; rows of the same ``source`` that are there already and not in ``values`` stay."""
    with contextlib.suppress(ValueError):
        before = load_episodes(folder)
        if before is not None and before.source == source:
            values = {**before.values, **values}
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{row}\t{column}": value for row, columns in values.items() for column, value in columns.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, **{"source": np.array(json.dumps(source)), **arrays})  # type: ignore[arg-type]
    atomic_write(folder / FILE, stream.getvalue())


def load_episodes(folder: Path) -> Episodes | None:
    """What ``save_episodes`` wrote; None where there is nothing.

    Raises:
      ValueError: for a damaged file; names it.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    values: Values = {}
    try:
        with np.load(path) as archive:
            source = json.loads(str(archive["source"]))
            for name in archive.files:
                if name != "source":
                    row, column = name.split("\t")
                    values.setdefault(row, {})[column] = archive[name]
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise ValueError(f"{path} is damaged ({error}); the run's own command writes it anew") from error
    return Episodes(values, source)
