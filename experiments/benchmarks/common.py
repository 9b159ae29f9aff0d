"""What benchmarks share: their flags, the training loop's own step, and the result file."""

import dataclasses
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console

from experiments.benchmarks.timing import Candidate
from metarep_jax.report import results, tables
from metarep_jax.train import OptimiserConfig, local_devices, make_optimiser, use_cpu_devices
from metarep_jax.train.parallel import check_batch, map_step, replicate, shard
from metarep_jax.train.step import TrainState, make_roots, make_update
from metarep_jax.types import Trainable, batch_axis

console = Console()
TRACED = 3  # steps of a trace


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Flags that every benchmark has."""

    seconds: float = 40.0
    """Time of the run, compilation included; what is left goes to the settings in equal parts, at least 5 s each."""
    devices: int | None = None
    """Devices of ours, and threads of the peers; default: all (on a CPU, one a core)."""
    result: Path | None = None
    """Where to write the result file; default: runs/NAME.json."""

    def __post_init__(self):
        if self.seconds <= 0:
            raise ValueError(f"seconds must be positive, got {self.seconds}")
        if self.devices is not None and self.devices < 1:
            raise ValueError(f"devices must be at least 1, got {self.devices}")


@dataclasses.dataclass(frozen=True)
class PeerBenchmarkConfig(BenchmarkConfig):
    """Flags of benchmarks that have peers to compare with."""

    peers: bool = True
    """Also time PyTorch (extra "peers")."""


@dataclasses.dataclass(frozen=True)
class StepBenchmarkConfig(PeerBenchmarkConfig):
    """Flags of benchmarks of a training step."""

    conv: str = "auto"
    """How our convolutions are computed, as encoders know it; auto: chosen for the backend."""
    profile: Path | None = None
    """A new folder for a JAX trace of our step; default: none."""

    def __post_init__(self):
        super().__post_init__()
        if self.profile is not None and self.profile.exists():
            raise ValueError(f"--profile {self.profile} is there already; a trace goes into a new folder, name another")


def run(main: Callable[[Any], None], config: type[BenchmarkConfig], description: str | None) -> None:
    """``main`` of the command line's config; an error that a user can act on ends it with its message."""
    from experiments.cli import errors_as_messages

    with errors_as_messages():
        main(tyro.cli(config, description=description))


def start(config: BenchmarkConfig) -> list:
    """The devices to measure on; call it before JAX does anything."""
    logging.getLogger("jax").setLevel(logging.WARNING)
    use_cpu_devices(config.devices)
    return local_devices(config.devices)


def peers_present(config: PeerBenchmarkConfig, *modules: str) -> bool:
    """Whether the peers are wanted and installed; says so aloud when they are missing."""
    if not config.peers:
        return False
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        console.print(f"[yellow]without peers:[/] {', '.join(missing)} not installed (pip install -e '.[peers]')")
    return not missing


def training_step(
    trainable: Trainable,
    params: Any,
    state: Any,
    batch: Any,
    *,
    devices: list,
    optimiser: optax.GradientTransformation | None = None,
) -> tuple[Candidate, list]:
    """The training loop's own update (default: Adam) on one ``batch``, spread over the devices, always the same.

    Returns:
      The step, and a list that holds the last step's ``[train state, metrics]``, with a leading device axis.
    """
    optimiser = optimiser or optax.adam(1e-3)
    mapped = mapped_update(trainable, optimiser, batch_axis(batch), devices)
    return stepping(mapped, TrainState(params, state, optimiser.init(params), None, jnp.int32(0)), batch, devices)


def mapped_update(trainable: Trainable, optimiser: optax.GradientTransformation, size: int, devices: list) -> Any:
    """The training loop's update of a batch of ``size``, given as its source, mapped over the devices."""
    check_batch(size, devices)
    return map_step(
        make_update(trainable, optimiser, lambda source, *_: source, size=size, shards=len(devices)), devices
    )


def by_device(leaf: Any, devices: list) -> tuple[int, ...]:
    """The shape of a batch's array when it is divided over the devices."""
    return len(devices), leaf.shape[0] // len(devices), *leaf.shape[1:]


def stepping(mapped: Callable[..., Any], train: TrainState, batch: Any, devices: list) -> tuple[Candidate, list]:
    """A step of ``mapped_update`` from the state ``train``, always of the same batch; see ``training_step``."""
    parts = jax.tree.map(lambda leaf: leaf.reshape(by_device(leaf, devices)), batch)
    source, roots = shard(parts, devices), make_roots([0])
    last = [replicate(train, devices), {}]

    def step() -> None:
        last[:] = mapped(last[0], source, roots, jnp.int32(0))
        jax.block_until_ready(last)

    return step, last


def pretraining_step(
    trainable: Trainable, batch: Any, *, devices: list, optimiser: OptimiserConfig
) -> tuple[Candidate, list]:
    """``training_step`` of a pretraining from its own start, which ``last`` holds before the first step."""
    params, state = jax.jit(trainable.init)(make_roots([0]).init, batch)
    made = make_optimiser(optimiser, 1_000_000)  # a constant rate: the total does not matter
    return training_step(trainable, params, state, batch, devices=devices, optimiser=made)


def first_step(name: str, step: Candidate, last: list) -> list[float]:
    """Takes the first step, which compiles, and says so; returns its loss and the gradient's norm."""
    begin = time.perf_counter()
    step()
    seconds = time.perf_counter() - begin
    loss, norm = (float(last[1][metric][0]) for metric in ("loss", "gradient_norm"))
    console.print(f"{name}: compiled in {seconds:.1f} s, first loss {loss:.5f}, gradient {norm:.5f}", highlight=False)
    return [loss, norm]


def trace(config: StepBenchmarkConfig, steps: Mapping[str, Candidate]) -> None:
    """Writes a JAX trace of a few steps of each into ``--profile``/NAME, where that was asked for."""
    if config.profile is None:
        return
    for name, step in steps.items():
        with jax.profiler.trace(str(config.profile / name)):
            for _ in range(TRACED):
                step()
    console.print(f"trace: {config.profile}", highlight=False)


def set_torch_threads(devices: list) -> None:
    """As many threads for PyTorch as ours has devices (all cores where ours has an accelerator)."""
    import torch

    torch.set_num_threads(len(devices) if devices[0].platform == "cpu" else os.cpu_count() or 1)


def finish(
    name: str, config: BenchmarkConfig, cells: Mapping[str, Mapping[str, Any]], *, protocol: str, started: float
) -> results.Result:
    """Writes the result file and prints the table."""
    from experiments.cli import command_line

    settings = {key: value for key, value in dataclasses.asdict(config).items() if key != "result"}
    result = results.make_result(
        name=name,
        command=command_line(f"experiments.benchmarks.{name}"),
        config=settings,
        protocol=protocol,
        seeds=[0],
        cells=cells,
        wall_clock_s=time.perf_counter() - started,
    )
    path = config.result or Path("runs") / f"{name}.json"
    results.write_result(path, result)
    console.print(tables.terminal_table(result))
    console.print(f"result file: {path}", highlight=False)
    return result
