"""How time and memory of a step grow: ``python -m experiments.benchmarks.scaling --seconds 150``.

One setting at a time is doubled: ``batch`` and ``devices`` of a SimCLR step, ``tasks`` and ``inner-steps`` of a
second-order MAML step, both of Conv4-64 on images of 28×28. Memory is what the compiled step asks for, and the peak
that steps took beside their state and batch. The slope of a straight line through the logarithms says how cost grows:
1 is in proportion, 0 not at all; of ``devices``, −1 is ideal. A setting whose compiled step asks for more memory than
there is is not run.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import common, memory, timing
from experiments.benchmarks.common import console
from experiments.benchmarks.meta_step import MetaStepConfig, Setting, make_episodes, make_learner
from experiments.benchmarks.self_supervised_steps import SelfSupervisedStepsConfig, make_views, our_batch, our_objective
from metarep_jax.report.figures import log_slope, save_scaling
from metarep_jax.train import meta_learning, pretraining
from metarep_jax.train.step import TrainState, make_roots
from metarep_jax.types import Trainable, batch_axis

Axis = Literal["batch", "tasks", "inner-steps", "devices"]
FIRST = {"batch": 64, "tasks": 8, "inner-steps": 1, "devices": 1}  # then doubled
BATCH, TASKS = 256, 8  # while another setting is doubled
LEAST_SECONDS = 1.0  # of measuring a point, when compiling took all the time that was given
COSTS = {
    "ms": "ms a step",
    "compiled_mb": "MB that the compiled step asks for",
    "peak_mb": "MB at the peak, beside state and batch",
}


@dataclasses.dataclass(frozen=True)
class ScalingConfig(common.BenchmarkConfig):
    """Flags of experiments.benchmarks.scaling."""

    seconds: float = 150.0
    """Time of the run, most of it compilation; what is left is measuring, at least a second a point."""
    axis: tuple[Axis, ...] = get_args(Axis)
    """What is doubled: one or more of batch, tasks, inner-steps, devices."""
    points: int = 4
    """Values of each, the first included; of devices no more than there are."""
    memory: float | None = None
    """GB that a step may take; default: what is free."""
    figure: Path | None = None
    """Where to draw the figure; default: runs/scaling.png."""

    def __post_init__(self):
        super().__post_init__()
        if not self.axis or not set(self.axis) <= set(get_args(Axis)):
            raise ValueError(f"--axis takes one or more of {', '.join(get_args(Axis))}; got {self.axis}")
        if self.points < 2:
            raise ValueError(f"--points must be at least 2, since one point has no slope; got {self.points}")
        if self.memory is not None and self.memory <= 0:
            raise ValueError(f"--memory must be positive, got {self.memory}")


class Work(NamedTuple):
    """What a point measures: a method, its batch, and the devices."""

    trainable: Trainable
    batch: Any
    devices: list


def work_of(axis: str, value: int, devices: list) -> Work:
    """The step in which ``axis`` has that value."""
    if axis in ("batch", "devices"):
        config = SelfSupervisedStepsConfig(batch=value if axis == "batch" else BATCH)
        own = devices[:value] if axis == "devices" else devices
        batch = our_batch("simclr", make_views(config))
        return Work(pretraining(our_objective("simclr", config)), batch, own)
    tasks, steps = (value, 1) if axis == "tasks" else (TASKS, value)
    learner = make_learner(MetaStepConfig(), Setting(tasks, 1, steps))
    return Work(meta_learning(learner), make_episodes(tasks, 1), devices)


def values_of(axis: str, points: int, devices: list) -> list[int]:
    """What the axis goes through; a batch is a multiple of the devices."""
    first = FIRST[axis] if axis in ("inner-steps", "devices") else -(-FIRST[axis] // len(devices)) * len(devices)
    most = len(devices) if axis == "devices" else first * 2**points
    return [first * 2**point for point in range(points) if first * 2**point <= most]


def compile_step(work: Work) -> tuple[Any, Callable[[], TrainState]]:
    """The step, compiled from shapes alone, and what makes the state before the first."""
    optimiser = optax.adam(1e-3)
    mapped = common.mapped_update(work.trainable, optimiser, batch_axis(work.batch), work.devices)

    def start(batch: Any) -> TrainState:
        params, state = work.trainable.init(make_roots([0]).init, batch)
        return TrainState(params, state, optimiser.init(params), None, jnp.int32(0))

    def with_devices(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((len(work.devices), *leaf.shape), leaf.dtype)

    def divided(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(common.by_device(leaf, work.devices), leaf.dtype)

    train = jax.tree.map(with_devices, jax.eval_shape(start, work.batch))
    source = jax.tree.map(divided, work.batch)
    compiled = mapped.lower(train, source, make_roots([0]), jnp.int32(0)).compile()
    return compiled, lambda: jax.jit(start)(work.batch)


def measure(name: str, work: Work, limit: float | None, seconds: float) -> dict[str, Any] | None:
    """Cells of a point; None, said aloud, where its memory would be more than ``limit`` bytes."""
    begin = time.perf_counter()
    compiled, start = compile_step(work)
    estimate = memory.compiled_bytes(compiled, work.devices)
    limit = memory.available(work.devices) if limit is None else limit
    if limit is not None and estimate > limit:
        console.print(
            f"[yellow]{name}: stopped before it:[/] an estimated {estimate / 1e9:.2f} GB, and {limit / 1e9:.2f} GB "
            "are there (--memory)",
            highlight=False,
        )
        return None
    step, _ = common.stepping(compiled, start(), work.batch, work.devices)
    ready = time.perf_counter() - begin
    peak = memory.Peak(work.devices)
    peak.start()
    cells: dict[str, Any] = {"ms": timing.median_cell(timing.alternate({"ours": step}, seconds)["ours"])}
    for column, found in (("compiled_mb", estimate), ("peak_mb", peak.taken())):
        if found is not None:
            cells[column] = {"mean": found / memory.MEGA, "ci95": None, "n": 1}
    said = ", ".join(f"{cell['mean']:.0f} {column}" for column, cell in cells.items())
    console.print(f"{name}: {said}; compiled in {ready:.1f} s", highlight=False)
    return cells


def lines_of(axis: str, rows: dict[str, dict[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """By cost, the values of the axis and what they cost, where it was measured."""
    points = {float(row.rpartition(" ")[2]): cells for row, cells in rows.items() if row.rpartition(" ")[0] == axis}
    return {
        cost: ([value for value, cells in points.items() if cost in cells],
               [cells[cost]["mean"] for cells in points.values() if cost in cells])
        for cost in COSTS
    }  # fmt: skip


def main(config: ScalingConfig) -> None:
    """Measures every point, draws the figure and writes the result file."""
    started = time.perf_counter()
    devices = common.start(config)
    limit = None if config.memory is None else 1e9 * config.memory
    plan = {axis: values_of(axis, config.points, devices) for axis in config.axis}
    rows: dict[str, dict[str, Any]] = {}
    left = sum(map(len, plan.values()))
    for axis, values in plan.items():
        for value in values:
            # Of the time that is left a point's share, a third of it for measuring: compiling takes the most.
            share = (config.seconds - time.perf_counter() + started) / left
            cells = measure(f"{axis} {value}", work_of(axis, value, devices), limit, max(share / 3, LEAST_SECONDS))
            if cells is None:
                break
            rows[f"{axis} {value}"] = cells
            left -= 1
    if not rows:
        raise ValueError("no setting fits into the memory; give more by --memory, or another --axis")
    lines = {axis: lines_of(axis, rows) for axis in config.axis}
    for axis, costs in lines.items():
        slopes = {cost: log_slope(*line) for cost, line in costs.items() if len(line[0]) > 1}
        if slopes:
            n = len(costs["ms"][0])
            rows[f"{axis}, slope"] = {cost: {"mean": slope, "ci95": None, "n": n} for cost, slope in slopes.items()}
    figure = config.figure or Path("runs") / "scaling.png"
    figure.parent.mkdir(parents=True, exist_ok=True)
    save_scaling(
        figure,
        {words: {axis: each[cost] for axis, each in lines.items() if each[cost][0]} for cost, words in COSTS.items()},
    )
    console.print(f"figure: {figure}", highlight=False)
    protocol = (
        f"SimCLR of Conv4-64, {BATCH} images unless doubled; second-order MAML of Conv4-64, 5-way 1-shot, 1 query a "
        f"class, {TASKS} tasks and 1 inner step unless doubled; median ms, MB of all devices together on CPUs; slope: "
        "of a straight line through the logarithms"
    )
    common.finish("scaling", config, rows, protocol=protocol, started=started)


if __name__ == "__main__":
    common.run(main, ScalingConfig, __doc__)
