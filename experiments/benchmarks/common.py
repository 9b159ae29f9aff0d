"""What benchmarks share: candidates timed in turn on one machine, its matrix-product rate, and the result file.

On a machine whose clock changes with its load, times of different runs do not compare: candidates alternate within one
run, medians are reported, and the rate of a large matrix product is measured among them.
"""

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
import numpy as np
import optax
from rich.console import Console

from metarep_jax.report import results, tables
from metarep_jax.train import OptimiserConfig, local_devices, make_optimiser, use_cpu_devices
from metarep_jax.train.parallel import check_batch, map_step, replicate, shard
from metarep_jax.train.step import TrainState, make_roots, make_update
from metarep_jax.types import Trainable, batch_axis

console = Console()
Candidate = Callable[[], Any]  # one step, finished when it returns

SIDE = 2048  # of the matrix product that measures the machine's rate: large enough to reach it, 17 GFLOP a product
TURN_SECONDS = 0.25  # of one candidate before the next has its turn


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
    optimiser, size = optimiser or optax.adam(1e-3), batch_axis(batch)
    check_batch(size, devices)
    update = make_update(trainable, optimiser, lambda source, *_: source, size=size, shards=len(devices))
    mapped = map_step(update, devices)
    parts = jax.tree.map(lambda leaf: leaf.reshape(len(devices), -1, *leaf.shape[1:]), batch)
    source, roots = shard(parts, devices), make_roots([0])
    last = [replicate(TrainState(params, state, optimiser.init(params), None, jnp.int32(0)), devices), {}]

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


def set_torch_threads(devices: list) -> None:
    """As many threads for PyTorch as ours has devices (all cores where ours has an accelerator)."""
    import torch

    torch.set_num_threads(len(devices) if devices[0].platform == "cpu" else os.cpu_count() or 1)


def alternate(candidates: Mapping[str, Candidate], seconds: float) -> dict[str, np.ndarray]:
    """Times of one step in ms, candidates taking turns for ``seconds`` in all, after a warm-up of two steps each.

    The first step of a turn is not counted: caches hold the last candidate's arrays, and its threads may still spin.
    """
    for step in candidates.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 3:
        for name, step in candidates.items():
            step()
            turn = time.perf_counter()
            while True:
                begin = time.perf_counter()
                step()
                now = time.perf_counter()
                times[name].append(1e3 * (now - begin))
                if now - turn > TURN_SECONDS:
                    break
    return {name: np.asarray(found) for name, found in times.items()}


def matrix_products(devices: list, peers: bool) -> dict[str, Candidate]:
    """Large float32 matrix products on all devices, by XLA and by PyTorch; the faster one is the machine's rate."""
    count = len(devices)
    left, right = np.random.default_rng(0).standard_normal((2, SIDE, SIDE)).astype(np.float32)
    rows = SIDE // count
    spread = jax.pmap(lambda x: x, devices=devices)
    a = spread(left[: rows * count].reshape(count, rows, SIDE))
    b = jax.pmap(lambda _, x: x, devices=devices, in_axes=(0, None))(np.arange(count), right)
    product = jax.pmap(jnp.matmul, devices=devices)
    found: dict[str, Candidate] = {"product_xla": lambda: jax.block_until_ready(product(a, b))}
    if peers and devices[0].platform == "cpu":
        import torch

        p, q = torch.from_numpy(left), torch.from_numpy(right)
        found["product_torch"] = lambda: p @ q
    return found


def product_rate(times: Mapping[str, np.ndarray]) -> float:
    """The machine's matrix-product rate in GFLOP/s: the best median of ``matrix_products``."""
    return 2e-9 * SIDE**3 / (1e-3 * min(np.median(times[name]) for name in times if name.startswith("product_")))


def median_cell(times: np.ndarray) -> dict[str, Any]:
    """The median in ms and the half-width of its 95% interval (McGill et al. 1978: 1.57 IQR / √n)."""
    spread = np.percentile(times, 75) - np.percentile(times, 25)
    return {"mean": float(np.median(times)), "ci95": float(1.57 * spread / np.sqrt(times.size)), "n": int(times.size)}


def images_per_s(cell: Mapping[str, Any], images: int) -> dict[str, Any]:
    """The rate of a step that takes ``images``, from its ``median_cell``."""
    rate = 1e3 * images / cell["mean"]
    return {"mean": rate, "ci95": rate * cell["ci95"] / cell["mean"], "n": cell["n"]}


def cells_of(measured: Mapping[str, Mapping[str, np.ndarray]], gflop: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Rows of the result file: ours and peers in ms, the ratio to the best peer, the share of the machine's rate.

    Args:
      measured: ``{column: {row: times in ms}}`` as ``alternate`` returns them, with ``ours`` and the matrix products.
      gflop: matrix products of one step in GFLOP, a column.
    """
    rows: dict[str, dict[str, Any]] = {}
    for column, times in measured.items():
        medians = {name: float(np.median(found)) for name, found in times.items() if not name.startswith("product_")}
        for name in medians:
            rows.setdefault(name, {})[column] = median_cell(times[name])
        peers = [median for name, median in medians.items() if name != "ours"]
        n = int(times["ours"].size)
        if peers:
            ratio = min(peers) / medians["ours"]
            rows.setdefault("ratio_to_best_peer", {})[column] = {"mean": ratio, "ci95": None, "n": n}
        share = gflop[column] / (1e-3 * medians["ours"]) / product_rate(times)
        rows.setdefault("share_of_peak", {})[column] = {"mean": share, "ci95": None, "n": n}
    return rows


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
