"""The one training loop."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.train.dispatch import StepsPerDispatch, compiled, first_state, on_host, stopwatch
from metarep_jax.train.display import display
from metarep_jax.train.divergence import check_finite
from metarep_jax.train.fit_config import FitConfig, is_due, next_stop
from metarep_jax.train.metrics import MetricsLog, append_metrics, mean_metrics, mean_over_seeds, warn_once
from metarep_jax.train.optimisers import OptimiserConfig, make_optimiser
from metarep_jax.train.parallel import check_batch, local_devices, replicate, unreplicate
from metarep_jax.train.processes import gather_processes, on_main_process
from metarep_jax.train.signals import Terminated, catch_termination
from metarep_jax.train.sources import PoolSource, Source, make_source
from metarep_jax.train.step import Roots, TrainState, make_roots
from metarep_jax.train.storage.checkpoints import Checkpoints
from metarep_jax.train.storage.resume import Position, load_position, save_position
from metarep_jax.train.storage.run_folder import hold_folder
from metarep_jax.train.trainable import has_refresh
from metarep_jax.types import Feed, Metrics, Trainable

log = logging.getLogger(__name__)

PROFILED = 3  # the dispatch that --profile traces, counted from 1: the first compiles, the second is timed


class Fitted(NamedTuple):
    """What training gives: averaged weights where asked for; with several seeds, a leading seed axis on all arrays."""

    params: Any
    state: Any
    step: int  # updates behind these parameters
    metrics: dict[str, float]  # the line of metrics at that step


def fit(
    trainable: Trainable,
    feed: Feed,
    *,
    optimiser: OptimiserConfig,
    config: FitConfig,
    seed: int,
    folder: Path | str,
    validate: Callable[[Any, Any, int], dict[str, float]] | None = None,
    select: str | None = None,
    warn: Callable[[Metrics], str | None] | None = None,
    description: str = "train",
    settings: dict[str, Any] | None = None,
    devices: Sequence[Any] | None = None,
) -> Fitted:
    """Trains, and returns the best parameters by ``select``, or the last.

    Killed at any moment and called again with the same arguments, it goes on from the last checkpoint and ends with
    the same parameters and the same ``metrics.jsonl``, bit by bit (on the same devices; on a GPU with deterministic
    kernels). With several processes, all of them call it; the first one writes.

    Args:
      trainable: what to train.
      feed: where its batches come from; of ``config.batch_size`` rows.
      optimiser, config: see there.
      seed: all randomness follows from it.
      folder: gets ``checkpoints``, ``metrics.jsonl``, ``timing.jsonl``, ``tensorboard`` and ``profile``.
      validate: ``(params, state, step) -> metrics``, called after every ``config.validate_every`` steps and the last.
      select: the metric of ``validate`` by which the best parameters are chosen; higher is better.
      warn: what to say aloud about a line of metrics, or None.
      description: names the run where it shows its progress.
      settings: what else, beside the arguments here, a checkpoint must agree with to be resumed (JSON's types).
      devices: to train on; None: all, of all processes.

    Raises:
      ValueError: before anything compiles, for a batch that does not divide over the devices, a feed of another batch
        size, a negative seed, and a checkpoint of another config.
      TrainingDiverged: at the first step whose loss or gradient is not finite; earlier checkpoints are kept.
      Terminated: on SIGTERM, after saving; exits with status 143 unless caught.
      RunFolderInUse: when another process trains in ``folder``.
      OSError: when the disk is full; earlier checkpoints are kept.
    """
    folder, devices = Path(folder), local_devices() if devices is None else list(devices)
    _check(trainable, feed, config, seed, devices)
    select = select if validate else None
    seeds = tuple(range(seed, seed + config.seeds))
    transform, roots = make_optimiser(optimiser, config.steps), make_roots(seeds)
    said = {"optimiser": dataclasses.asdict(optimiser), "fit": dataclasses.asdict(config), "seed": seed}
    with contextlib.ExitStack() as stack:
        terminated = stack.enter_context(catch_termination())
        checkpoints = None
        if on_main_process():
            stack.enter_context(hold_folder(folder, "fit"))
            said |= {"run": settings or {}}
            checkpoints = Checkpoints(
                folder / "checkpoints", keep=config.keep, scored=select is not None, settings=said
            )
            stack.enter_context(checkpoints)
            checkpoints.check_settings()  # before anything compiles
        source = make_source(feed, devices, most=config.steps_per_dispatch, accumulate=config.accumulate)
        stack.callback(source.close)
        start = first_state(trainable, transform, source, roots, config)
        position = load_position(checkpoints, start)
        if position is None:
            position = Position(0, start, *source.saved(), {}, {})
        else:
            source.restore(position.pool, position.reader)
            log.info("%s: goes on after step %d of %d", description, position.step, config.steps)
        lines = MetricsLog(folder if on_main_process() else None, position.step, tensorboard=config.tensorboard)
        stack.enter_context(lines)
        shown = display(description, position.step, config.steps, visible=config.progress and on_main_process())
        run = _Run(
            config,
            seeds,
            folder,
            description,
            source,
            dispatch=compiled(trainable, transform, source, roots, config, devices),
            validate=validate,
            select=select,
            refresh=partial(_refresh, source, trainable, roots)
            if isinstance(source, PoolSource) and has_refresh(trainable)
            else None,
            warn=warn_once(warn, log.warning),
            show=stack.enter_context(shown),
            terminated=terminated,
            lines=lines,
            checkpoints=checkpoints,
        )
        position = _to_the_end(run, position, devices)
        if checkpoints is not None:
            checkpoints.wait()
        if gather_processes(np.asarray(terminated())).any():
            raise _ended(description, position.step, config.steps)
        best = load_position(checkpoints, start, best=True) if select else None
    chosen = best or position
    train = jax.tree.map(jnp.asarray, chosen.train)
    return Fitted(_weights(train), train.state, chosen.step, chosen.line)


def _check(trainable: Trainable, feed: Feed, config: FitConfig, seed: int, devices: Sequence[Any]) -> None:
    check_batch(config.batch_size, devices, config.accumulate)
    if feed.size != config.batch_size:
        raise ValueError(f"the feed gives batches of {feed.size} rows, FitConfig.batch_size is {config.batch_size}")
    if feed.draw is None and feed.reader is None:
        raise ValueError("a feed needs a draw (a pool on the device) or a reader (a stream)")
    if seed < 0:
        raise ValueError(f"the seed must not be negative, got {seed}")
    if has_refresh(trainable) and (config.seeds > 1 or feed.reader is not None):
        raise ValueError("a method that refreshes its pool trains one seed, on a feed whose pool lies on the device")


class _Run(NamedTuple):
    """What stays the same during a run."""

    config: FitConfig
    seeds: tuple[int, ...]
    folder: Path
    description: str
    source: Source
    dispatch: Any
    validate: Any
    select: str | None
    refresh: Any
    warn: Any
    show: Any
    terminated: Any
    lines: MetricsLog
    checkpoints: Checkpoints | None


def _to_the_end(run: _Run, position: Position, devices: Sequence[Any]) -> Position:
    """The loop: dispatch, look at what came back, and do what is due."""
    config, source, last = run.config, run.source, run.config.steps
    validate_every = config.validate_every if run.validate else 0
    refresh_every = config.refresh_period if run.refresh else 0
    periods = (config.log_every, config.checkpoint_every, validate_every, refresh_every)
    pace, lap, line_lap, calls = StepsPerDispatch(source.most), stopwatch(), stopwatch(), 0
    step, rows, line, line_step = position.step, position.rows, position.line, position.step
    train = replicate(position.train, devices)

    def plan(step: int) -> int:
        return min(pace.count, next_stop(step, last, *periods) - step)

    count = plan(step)
    while step < last:
        calls += 1
        lap()
        with _profiled(run.folder, config.profile and on_main_process() and calls == PROFILED):
            train, metrics = run.dispatch(train, source.take(count), count)
            upcoming = plan(step + count)
            if upcoming:
                source.prepare(upcoming)  # while the devices work
            found = on_host(metrics, count)
        stopping = pace.measured(count, lap(), run.terminated()) and step + count < last
        check_finite(found, step, f"{run.description} in {run.folder}")
        rows = append_metrics(rows, found)
        step, count = step + count, upcoming

        validates = run.validate is not None and is_due(validate_every, step, last)
        if is_due(config.log_every, step, last) or validates:
            line, rows = mean_metrics(rows, run.seeds), {}
            run.warn(line)
            seconds = line_lap() / (step - line_step)
            if validates:
                line |= mean_over_seeds(_validated(run, train, step), run.seeds)
                line_lap()
            run.lines.write(step, line)
            run.lines.write_timing(step, seconds_per_step=seconds)
            line_step = step
        run.show(step, line or mean_metrics(rows, run.seeds))
        if run.refresh is not None and step < last and step % refresh_every == 0:
            run.refresh(train, step)
        selects = validates and run.select
        if stopping or selects or is_due(config.checkpoint_every, step, last):
            run.lines.flush()
            position = Position(step, unreplicate(train), *source.saved(), rows, line)
            save_position(run.checkpoints, position, line[run.select] if selects and run.select else None)
        if stopping:
            if run.checkpoints is not None:
                run.checkpoints.wait()
            raise _ended(run.description, step, last)
    return position


def _ended(description: str, step: int, last: int) -> Terminated:
    message = f"{description}: asked to end; saved after step {step} of {last}"
    log.warning(message)
    return Terminated(message)


def _refresh(source: PoolSource, trainable: Trainable, roots: Roots, train: TrainState, step: int) -> None:
    now = jax.tree.map(jnp.asarray, unreplicate(train))
    key = jax.random.fold_in(jax.random.fold_in(roots.step, step), 2**31 - 2)  # no example's, no step's shared key
    source.refresh(lambda pool: trainable.refresh(now.params, now.state, pool, key))


def _validated(run: _Run, train: TrainState, step: int) -> Metrics:
    """The callback's metrics; [seeds] of each with several seeds."""
    now = jax.tree.map(jnp.asarray, unreplicate(train))
    weights, state = _weights(now), now.state
    if len(run.seeds) == 1:
        found = [run.validate(weights, state, step)]
    else:
        trees = [jax.tree.map(lambda leaf: leaf[i], (weights, state)) for i in range(len(run.seeds))]  # noqa: B023
        found = [run.validate(*tree, step) for tree in trees]
    if run.select is not None and run.select not in found[0]:
        raise ValueError(f"select={run.select!r}, but validate gives {', '.join(sorted(found[0]))}")
    return {name: np.asarray([each[name] for each in found]) for name in found[0]}


def _weights(train: TrainState) -> Any:
    return train.params if train.average is None else train.average


def _profiled(folder: Path, profile: bool) -> Any:
    return jax.profiler.trace(str(folder / "profile")) if profile else contextlib.nullcontext()
