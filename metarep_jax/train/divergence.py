"""A run whose loss is no longer a number stops, and says where."""

import numpy as np

WATCHED = ("loss", "gradient_norm")
INNER = "support_loss/"  # metrics: the support loss after so many inner steps


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
        advice = _inner_advice(rows, first[name]) or "A lower learning rate, a warm-up or clip_norm may help"
        raise TrainingDiverged(f"{message}. {advice}", step)


def _inner_advice(rows: dict[str, np.ndarray], row: int) -> str | None:
    """What to say where a meta-learner's inner loop had already left the finite numbers."""
    losses = {int(name.removeprefix(INNER)): rows[name][row] for name in rows if name.startswith(INNER)}
    steps = [step for step, loss in sorted(losses.items()) if not np.isfinite(loss).all()]
    if not losses or steps[:1] == [0]:
        return None
    if not steps:
        return "A lower learning rate, or a lower inner_lr, may help: the inner loop's support losses were finite"
    return f"The inner loop diverged at its step {steps[0]} of {len(losses)}: lower inner_lr"


def _first_bad(rows: np.ndarray) -> int | None:
    bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    return int(bad.argmax()) if bad.any() else None
