"""The hyperparameters of the training loop, checked before anything compiles."""

import dataclasses
from typing import Literal

from metarep_jax.typed_settings import Settings


@dataclasses.dataclass(frozen=True)
class FitConfig(Settings):
    """How long to train, on what batches, and what to keep of it."""

    steps: int = 1000
    """Updates in all."""
    on_more_steps: Literal["stretch", "hold"] = "stretch"
    """When a training begun with other steps goes on: stretch computes the learning rate's schedule for the new number
    of steps, hold leaves the schedule as it was and keeps its last rate after its end."""
    batch_size: int = 64
    """Rows (meta-learning: tasks) of the global batch, divided over all devices."""
    accumulate: int = 1
    """Micro-batches that the global batch is taken in, one after the other, to save memory."""
    average_decay: float | None = None
    """Averaged weights: validate and return an exponential moving average of the parameters with this decay."""
    seeds: int = 1
    """Seeds trained at once: the run's seed and those after it. Metrics are their mean, and each one's."""
    log_every: int = 50
    """Steps a line of metrics; the line holds their means."""
    validate_every: int = 0
    """Steps between validations, where there is something to validate on; 0: after the last step only."""
    checkpoint_every: int = 500
    """Steps between checkpoints; also one where a validation selects, and after the last step."""
    refresh_every: int = 0
    """Steps between refreshes of the pool, for methods that have one (neighbours); 0: as validate_every, or else
    checkpoint_every."""
    steps_per_dispatch: int = 50
    """Most steps that the devices do before the host looks again; fewer where those would take over two seconds."""
    keep: int = 2
    """Latest checkpoints to keep, beside the best."""
    progress: bool = True
    """Whether to show a progress bar (in a terminal) or a line of the log now and then (elsewhere)."""
    tensorboard: bool = True
    """Whether to write metrics for TensorBoard too."""
    profile: bool = False
    """Whether to write a JAX trace of the first steps after compilation to RUN/profile."""

    def __post_init__(self):
        super().__post_init__()
        if self.on_more_steps not in ("stretch", "hold"):
            raise ValueError(f"FitConfig.on_more_steps must be stretch or hold, got {self.on_more_steps!r}")
        for field in ("steps", "batch_size", "accumulate", "seeds", "log_every", "checkpoint_every"):
            _at_least(self, field, 1)
        for field in ("steps_per_dispatch", "keep"):
            _at_least(self, field, 1)
        for field in ("validate_every", "refresh_every"):
            _at_least(self, field, 0)
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            raise ValueError(f"FitConfig.average_decay must be in [0, 1), got {self.average_decay}")

    @property
    def refresh_period(self) -> int:
        """Steps between refreshes of the pool."""
        return self.refresh_every or self.validate_every or self.checkpoint_every


def is_due(every: int, step: int, last: int) -> bool:
    """Whether something that happens every so many steps (0: never) and after the ``last`` happens after ``step``."""
    return step == last or (every > 0 and step % every == 0)


def next_stop(step: int, last: int, *periods: int) -> int:
    """The first step after ``step`` at which one of the ``periods`` (0: none) ends, or ``last``."""
    return min([last, *((step // every + 1) * every for every in periods if every)])


def _at_least(config: FitConfig, field: str, least: int) -> None:
    if getattr(config, field) < least:
        raise ValueError(f"FitConfig.{field} must be at least {least}, got {getattr(config, field)}")
