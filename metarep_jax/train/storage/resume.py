"""All that a run is between two dispatches, saved and restored."""

import base64
from typing import Any, NamedTuple

import jax
import numpy as np

from metarep_jax.train.processes import broadcast_arrays, broadcast_from_main, gather_bytes
from metarep_jax.train.step import TrainState
from metarep_jax.train.storage.checkpoints import Checkpoints, Restored


class Position(NamedTuple):
    """A run between two dispatches; equal on all processes but for ``reader``."""

    step: int
    train: TrainState  # numpy arrays
    pool: dict[str, np.ndarray]  # what refreshes have changed in the pool
    reader: bytes  # where this process's reader stands
    rows: dict[str, np.ndarray]  # metrics of the steps since the last line, [steps, ...]
    line: dict[str, float]  # the last line of metrics


def save_position(checkpoints: Checkpoints | None, position: Position, score: float | None = None) -> None:
    """Begins to write ``position``, validated with ``score``. All processes call it, the main one writes."""
    readers = [base64.b64encode(data).decode() for data in gather_bytes(position.reader)]
    if checkpoints is not None:
        extra = {
            "readers": readers,
            "rows": {name: row.tolist() for name, row in position.rows.items()},
            "line": position.line,
        }
        checkpoints.save(position.step, {"train": position.train}, extra, score, extra_arrays=position.pool)


def load_position(checkpoints: Checkpoints | None, like: TrainState, *, best: bool = False) -> Position | None:
    """The latest position that is whole (``best``: that of the best validation), or None, on every process.

    Args:
      checkpoints: None on all processes but the main one.
      like: arrays, or their shapes and dtypes, of what is to be read.
      best: see above.

    Raises:
      ValueError: on every process, when the checkpoint belongs to another config.
    """
    restored: Restored | None = None
    answer: dict[str, Any] = {}
    if checkpoints is not None:
        try:
            restore = checkpoints.restore_best if best else checkpoints.restore_last
            restored = restore({"train": like})
        except ValueError as error:
            answer = {"refused": str(error)}
    if restored is not None:
        shapes = {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in restored.extra_arrays.items()}
        answer = {"step": restored.step, "extra": restored.extra, "pool": shapes}
    answer = broadcast_from_main(answer)
    if "refused" in answer:
        raise ValueError(answer["refused"])
    if not answer:
        return None
    if restored is None:  # not the process that reads
        train = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        pool = {name: np.zeros(shape, dtype) for name, (dtype, shape) in answer["pool"].items()}
    else:
        train, pool = restored.tree["train"], restored.extra_arrays
    train, pool = broadcast_arrays((train, pool))
    extra, readers = answer["extra"], answer["extra"]["readers"]
    if len(readers) != jax.process_count():
        raise ValueError(f"the run was begun by {len(readers)} processes, this is {jax.process_count()}; use as many")
    return Position(
        step=answer["step"],
        train=jax.tree.map(np.asarray, train),
        pool=pool,
        reader=base64.b64decode(readers[jax.process_index()]),
        rows={name: np.asarray(row, np.float32) for name, row in extra["rows"].items()},
        line=extra["line"],
    )
