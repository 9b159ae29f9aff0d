"""The compiled side of the loop: a run's first state, and many updates in one call, on all devices."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from metarep_jax.train.fit_config import FitConfig
from metarep_jax.train.parallel import map_step, unreplicate
from metarep_jax.train.processes import gather_processes
from metarep_jax.train.sources import Source
from metarep_jax.train.step import Roots, TrainState, initial_state, make_update, many_updates
from metarep_jax.types import Metrics, Trainable

Dispatch = Callable[[TrainState, PyTree, int], tuple[TrainState, Metrics]]  # (train, source, count)

DISPATCH_SECONDS = 2.0  # aimed at: SIGTERM and the progress bar wait no longer


def first_state(
    trainable: Trainable, optimiser: optax.GradientTransformation, source: Source, roots: Roots, config: FitConfig
) -> TrainState:
    """The state before the first update, as numpy arrays; with several seeds, with a leading seed axis."""

    def begin(roots: Roots) -> TrainState:
        return initial_state(trainable, optimiser, roots, source.example(roots.data), config.average_decay is not None)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(begin) if config.seeds > 1 else begin)(roots))


def compiled(
    trainable: Trainable,
    optimiser: optax.GradientTransformation,
    source: Source,
    roots: Roots,
    config: FitConfig,
    devices: Sequence[Any],
) -> Dispatch:
    """``(train, source's arrays, count) -> train, metrics``: ``count`` updates in one call; ``train`` is donated.

    Metrics come as they lie on the devices, filled asynchronously; ``on_host`` waits for them.
    """
    update = make_update(
        trainable,
        optimiser,
        source.batch_at,
        size=config.batch_size,
        shards=len(devices),
        accumulate=config.accumulate,
        average_decay=config.average_decay,
    )
    mapped = map_step(many_updates(update, source.most, seeds=config.seeds > 1), devices)
    return lambda train, arrays, count: mapped(train, arrays, roots, np.int32(count))


def on_host(metrics: Metrics, count: int) -> dict[str, np.ndarray]:
    """The first ``count`` rows of a dispatch's metrics, [count] or [count, seeds]."""
    return {name: leaf[:count] for name, leaf in unreplicate(metrics).items()}


class StepsPerDispatch:
    """How many steps to do at once, so that a dispatch takes about ``DISPATCH_SECONDS``; agreed by all processes.

    Results do not depend on it: steps are the same compiled loop body however they are parted.
    """

    def __init__(self, most: int):
        self.count, self._most, self._calls = 1, most, 0

    def measured(self, count: int, seconds: float, stop: bool) -> bool:
        """Takes in a dispatch's duration. Returns whether any process was asked to ``stop``."""
        each, stopping = gather_processes(np.asarray([seconds / count, float(stop)])).max(axis=0)
        self._calls += 1
        if self._calls > 1:  # the first one compiles
            self.count = int(np.clip(DISPATCH_SECONDS / max(each, 1e-9), 1, self._most))
        return bool(stopping)


def stopwatch() -> Callable[[], float]:
    """Gives a function that returns the seconds since its last call, or since its making."""
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        now = time.perf_counter()
        passed, last = now - last, now
        return passed

    return lap
