"""How far an evaluation is, told to a bar or a log: columns, parts of a column's episodes, batches of features."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.evaluate.few_shot import Mapper

Show = Callable[..., None]  # (done, note="") -> None
PARTS, LEAST = 10, 100  # parts of a column, of so many episodes or more


def silent(done: int, note: str = "") -> None:
    """Shows nothing."""
    del done, note


def in_parts(mapper: Mapper, note: Callable[[str], None], what: str) -> Mapper:
    """``mapper``, a part of the keys after the other, with a ``note`` before each; the same results, compiled once."""

    def mapped(fn: Callable[..., Any], keys: Any, *shared: Any) -> Any:
        n = keys.shape[0]
        parts = min(PARTS, max(n // LEAST, 1))
        size = -(-n // parts)
        padded, results = keys[jnp.arange(parts * size) % n], []
        for part in range(parts):
            note(f"{what}, {part * size} of {n} episodes")
            results.append(mapper(fn, padded[part * size : (part + 1) * size], *shared))
        return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:n], *results)

    return mapped


def shown_batches(embed: Callable[[Any], Any], rows: int, note: Callable[[str], None]) -> Callable[[Any], Any]:
    """``embed``, with a ``note`` of how many of ``rows`` were embedded before each batch."""
    seen = 0

    def shown(inputs: Any) -> Any:
        nonlocal seen
        note(f"features, {min(seen, rows)} of {rows} rows")
        seen += len(inputs)
        return embed(inputs)

    return shown
