"""The one training loop."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.train.batches import BatchSource, PoolSource, make_batch_source
from metarep_jax.train.display import track_training
from metarep_jax.train.divergence import check_finite
from metarep_jax.train.fit_config import FitConfig, is_due, next_stop
from metarep_jax.train.metrics import MetricsLog, append_metrics, mean_metrics, mean_over_seeds, warn_once
from metarep_jax.train.optimisers import OptimiserConfig, make_optimiser
from metarep_jax.train.parallel import check_batch, local_devices, map_step, replicate, unreplicate
from metarep_jax.train.processes import gather_processes, on_main_process
from metarep_jax.train.signals import Terminated, catch_termination
from metarep_jax.train.step import Roots, TrainState, initial_state, make_roots, make_update, repeat_update
from metarep_jax.train.steps_per_dispatch import StepsPerDispatch
from metarep_jax.train.storage.checkpoints import Checkpoints
from metarep_jax.train.storage.course import plan_course
from metarep_jax.train.storage.inputs import Inputs
from metarep_jax.train.storage.resume import Position, load_position, save_position
from metarep_jax.train.storage.run_folder import hold_folder
from metarep_jax.train.trainable import has_refresh
from metarep_jax.train.waiting import WaitingTime
from metarep_jax.types import Feed, Metrics, Trainable

log = logging.getLogger(__name__)

PROFILED = 3  # the dispatch that --profile traces, counted from 1: the first compiles, the second is timed

Validate = Callable[[Any, Any, int], dict[str, float]]


class Fitted(NamedTuple):
    """The result of training: averaged weights where asked for; with several seeds, arrays with a leading seed axis."""

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
    validate: Validate | None = None,
    select: str | None = None,
    warn: Callable[[Metrics], str | None] | None = None,
    description: str = "train",
    settings: dict[str, Any] | None = None,
    inputs: Inputs | None = None,
    devices: Sequence[Any] | None = None,
) -> Fitted:
    """Trains, and returns the best parameters by ``select``, or the last.

    Killed at any moment and called again with the same arguments, it goes on from the last checkpoint and ends with
    the same parameters and the same ``metrics.jsonl``, bit by bit (on the same devices; on a GPU with deterministic
    kernels). Called again when it has finished, it returns the result from the checkpoints; with more steps it goes on
    (see ``FitConfig.on_more_steps``). With several processes, all of them call it; the main one writes.

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
      inputs: the digests of what is trained on and from; a checkpoint of others is refused. None: not compared.
      devices: to train on; None: all, of all processes.

    Raises:
      ValueError: before anything compiles, for a batch that does not divide over the devices, a feed of another batch
        size, a negative seed, a warm-up as long as the training, a checkpoint of another config or other inputs, and
        fewer steps than have been done.
      TrainingDiverged: at the first step whose loss or gradient is not finite; earlier checkpoints are kept.
      Terminated: on SIGTERM or Ctrl-C, after saving; exits with status 143 or 130 unless caught.
      RunFolderInUse: when another process trains in ``folder``.
      OSError: when the disk is full; earlier checkpoints are kept.
    """
    folder, devices = Path(folder), local_devices() if devices is None else list(devices)
    _check(trainable, feed, optimiser, config, seed, devices)
    select = select if validate else None
    seeds, last = tuple(range(seed, seed + config.seeds)), config.steps
    validate_every = config.validate_every if validate else 0
    refresh_every = config.refresh_period if has_refresh(trainable) else 0
    periods = (config.log_every, config.checkpoint_every, validate_every, refresh_every)
    record = {
        "optimiser": dataclasses.asdict(optimiser),
        "fit": dataclasses.asdict(config),
        "seed": seed,
        "run": settings or {},
        "course": {"selects": select is not None, "refreshes": has_refresh(trainable)},
        **({} if inputs is None else {"inputs": inputs}),
    }
    with contextlib.ExitStack() as stack:
        # The folder, and what an earlier process left in it.
        signal_number = stack.enter_context(catch_termination())
        checkpoints = None
        if on_main_process():
            stack.enter_context(hold_folder(folder, "fit"))
            place, scored = folder / "checkpoints", select is not None
            checkpoints = Checkpoints(place, keep=config.keep, scored=scored, settings=record)
            stack.enter_context(checkpoints)
        course = plan_course(checkpoints, config, optimiser, description)  # before anything compiles

        # The state: that of the last checkpoint, or the first.
        transform, roots = make_optimiser(optimiser, course.schedule_steps, last), make_roots(seeds)
        source = make_batch_source(feed, devices, most=config.steps_per_dispatch, accumulate=config.accumulate)
        stack.callback(source.close)

        def begin(roots: Roots) -> TrainState:
            example = source.example(roots.data)
            return initial_state(trainable, transform, roots, example, config.average_decay is not None)

        begin = jax.vmap(begin) if config.seeds > 1 else begin
        like = jax.eval_shape(begin, roots)
        position = load_position(checkpoints, like)
        if position is None:
            position = Position(0, jax.tree.map(np.asarray, jax.jit(begin)(roots)), *source.saved(), {}, {})
        else:
            source.restore(position.pool, position.reader)
            log.info("%s: goes on after step %d of %d", description, position.step, last)
        step, rows, line = position.step, position.rows, position.line
        train = replicate(position.train, devices)
        if refresh_every and step < last and step == course.begun_with and step % refresh_every == 0:
            _refresh(source, trainable, roots, train, step)  # was not due when this was the last step

        # The compiled updates.
        update = make_update(
            trainable,
            transform,
            source.batch_at,
            size=config.batch_size,
            shards=len(devices),
            accumulate=config.accumulate,
            average_decay=config.average_decay,
        )
        dispatch = map_step(repeat_update(update, source.most, seeds=config.seeds > 1), devices)

        lines = MetricsLog(folder if on_main_process() else None, step, tensorboard=config.tensorboard)
        stack.enter_context(lines)
        visible = config.progress and on_main_process()
        show = stack.enter_context(track_training(description, step, last, visible=visible))
        say = warn_once(warn, log.warning)
        pace, dispatches, stop = StepsPerDispatch(source.most), 0, 0
        waiting = WaitingTime(feed.reader, description)
        stack.callback(waiting.close)

        def steps_after(step: int) -> int:
            return min(pace.count, next_stop(step, last, *periods) - step)

        count, line_step, line_began = steps_after(step), step, time.perf_counter()
        while step < last and not stop:
            # Some updates in one dispatch.
            dispatches, began = dispatches + 1, time.perf_counter()
            with _profile(folder, config.profile and on_main_process() and dispatches == PROFILED):
                train, metrics = dispatch(train, source.take(count), roots, np.int32(count))
                upcoming = steps_after(step + count)
                if upcoming:
                    with waiting.measure(began, metrics):
                        source.prepare(upcoming)  # while the devices work
                new_rows = {name: leaf[:count] for name, leaf in unreplicate(metrics).items()}  # waits for them
            stop = pace.update(count, time.perf_counter() - began, signal_number())
            check_finite(new_rows, step, f"{description} in {folder}")
            rows = append_metrics(rows, new_rows)
            step, count = step + count, upcoming

            # What is due after them.
            validates = validate is not None and is_due(validate_every, step, last)
            if is_due(config.log_every, step, last) or validates:
                line, rows = mean_metrics(rows, seeds), {}
                say(line)
                seconds_per_step = (time.perf_counter() - line_began) / (step - line_step)
                lines.write_timing(step, seconds_per_step=seconds_per_step, **waiting.end_line())
                line_step, line_began = step, time.perf_counter()
                if validates and validate is not None:
                    line |= mean_over_seeds(_validate(validate, train, step, config.seeds, select), seeds)
                    line_began = time.perf_counter()
                lines.write(step, line)
            show(step, line or mean_metrics(rows, seeds), waiting.in_words())
            if refresh_every and step < last and step % refresh_every == 0:
                _refresh(source, trainable, roots, train, step)
            if stop or (validates and select) or is_due(config.checkpoint_every, step, last):
                lines.flush()
                position = Position(step, unreplicate(train), *source.saved(), rows, line)
                save_position(checkpoints, position, line[select] if validates and select else None)

        if checkpoints is not None:
            checkpoints.wait()
        if stop := stop or int(gather_processes(np.asarray(signal_number())).max()):
            message = f"{description}: asked to end; saved after step {step} of {last}"
            log.warning(message)
            raise Terminated(message, stop)
        best = load_position(checkpoints, like, best=True) if select else None
    chosen = best or position
    train = jax.tree.map(jnp.asarray, chosen.train)
    return Fitted(_weights(train), train.state, chosen.step, chosen.line)


def _check(
    trainable: Trainable, feed: Feed, optimiser: OptimiserConfig, config: FitConfig, seed: int, devices: Sequence[Any]
) -> None:
    check_batch(config.batch_size, devices, config.accumulate)
    make_optimiser(optimiser, config.steps)
    if feed.size != config.batch_size:
        raise ValueError(f"the feed gives batches of {feed.size} rows, FitConfig.batch_size is {config.batch_size}")
    if feed.draw is None and feed.reader is None:
        raise ValueError("a feed needs a draw (a pool on the device) or a reader (a stream)")
    if seed < 0:
        raise ValueError(f"the seed must not be negative, got {seed}")
    if has_refresh(trainable) and (config.seeds > 1 or feed.reader is not None):
        raise ValueError("a method that refreshes its pool trains one seed, on a feed whose pool lies on the device")


def _refresh(source: BatchSource, trainable: Trainable, roots: Roots, train: TrainState, step: int) -> None:
    assert isinstance(source, PoolSource)  # see _check
    now = jax.tree.map(jnp.asarray, unreplicate(train))
    key = jax.random.fold_in(jax.random.fold_in(roots.step, step), 2**31 - 2)  # no example's, no step's shared key
    source.refresh(lambda pool: trainable.refresh(now.params, now.state, pool, key))


def _validate(validate: Validate, train: TrainState, step: int, seeds: int, select: str | None) -> Metrics:
    """The callback's metrics; [seeds] of each with several seeds."""
    now = jax.tree.map(jnp.asarray, unreplicate(train))
    weights, state = _weights(now), now.state
    if seeds == 1:
        each = [validate(weights, state, step)]
    else:
        trees = [jax.tree.map(lambda leaf: leaf[i], (weights, state)) for i in range(seeds)]  # noqa: B023
        each = [validate(params, state, step) for params, state in trees]
    if select is not None and select not in each[0]:
        raise ValueError(f"select={select!r}, but validate gives {', '.join(sorted(each[0]))}")
    return {name: np.asarray([metrics[name] for metrics in each]) for name in each[0]}


def _weights(train: TrainState) -> Any:
    return train.params if train.average is None else train.average


def _profile(folder: Path, profile: bool) -> Any:
    return jax.profiler.trace(str(folder / "profile")) if profile else contextlib.nullcontext()
