"""A run whose loss is no longer a number stops, and says where."""

import numpy as np

WATCHED = ("loss", "gradient_norm")


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is no longer finite; ``step`` is the update at which that happened, counted from 1."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def check_finite(rows: dict[str, np.ndarray], done: int, what: str) -> None:
    """Raises ``TrainingDiverged`` at the first row of the metrics [steps, ...] that is not finite.

    Args:
      rows: metrics of the steps after the first ``done``.
      done: steps before these.
      what: names the run in the message.
    """
    first = {name: bad for name in WATCHED if name in rows and (bad := _first_bad(rows[name])) is not None}
    if first:
        name = min(first, key=lambda name: first[name])
        step = done + first[name] + 1
        message = f"the {name} is not finite at step {step}: {what} stopped; checkpoints of earlier steps are kept"
        raise TrainingDiverged(f"{message}. A lower learning rate, a warm-up or clip_norm may help", step)


def _first_bad(rows: np.ndarray) -> int | None:
    bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    return int(bad.argmax()) if bad.any() else None
