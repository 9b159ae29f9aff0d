"""Candidates timed in turn on one machine, and its matrix-product rate.

On a machine whose clock changes with its load, times of different runs do not compare: candidates alternate within one
run, medians are reported, and the rate of a large matrix product is measured among them.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Candidate = Callable[[], Any]  # one step, finished when it returns

SIDE = 2048  # of the matrix product that measures the machine's rate: large enough to reach it, 17 GFLOP a product
PRODUCT = "product_"  # how the candidates are called that measure it
TURN_SECONDS = 0.25  # of one candidate before the next has its turn


def alternate(
    candidates: Mapping[str, Candidate], seconds: float, turn_seconds: float = TURN_SECONDS
) -> dict[str, np.ndarray]:
    """Times of one step in ms, candidates taking turns for ``seconds`` in all, after a warm-up of two steps each.

    Every other round goes through them backwards, so that none has always the same one before it. The first step of a
    turn is not counted: caches hold the last candidate's arrays, and its threads may still spin.
    """
    for step in candidates.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order, end = list(candidates.items()), time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 3:
        for name, step in order:
            step()
            turn = time.perf_counter()
            while True:
                begin = time.perf_counter()
                step()
                now = time.perf_counter()
                times[name].append(1e3 * (now - begin))
                if now - turn > turn_seconds:
                    break
        order.reverse()
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
    found: dict[str, Candidate] = {f"{PRODUCT}xla": lambda: jax.block_until_ready(product(a, b))}
    if peers and devices[0].platform == "cpu":
        import torch

        p, q = torch.from_numpy(left), torch.from_numpy(right)
        found[f"{PRODUCT}torch"] = lambda: p @ q
    return found


def product_rate(times: Mapping[str, np.ndarray]) -> float:
    """The machine's matrix-product rate in GFLOP/s: the best median of ``matrix_products``."""
    return 2e-9 * SIDE**3 / (1e-3 * min(np.median(times[name]) for name in times if name.startswith(PRODUCT)))


def median_cell(times: np.ndarray) -> dict[str, Any]:
    """The median in ms and the half-width of its 95% interval (McGill et al. 1978: 1.57 IQR / √n)."""
    spread = np.percentile(times, 75) - np.percentile(times, 25)
    return {"mean": float(np.median(times)), "ci95": float(1.57 * spread / np.sqrt(times.size)), "n": int(times.size)}


def images_per_s(cell: Mapping[str, Any], images: int) -> dict[str, Any]:
    """The rate of a step that takes ``images``, from its ``median_cell``."""
    rate = 1e3 * images / cell["mean"]
    return {"mean": rate, "ci95": rate * cell["ci95"] / cell["mean"], "n": cell["n"]}


def compared(times: Mapping[str, np.ndarray], gflop: float | None = None) -> dict[str, dict[str, Any]]:
    """What one setting comes to: ``ours`` in ms; with peers the ``best_peer`` in ms and ``ratio_to_best_peer``.

    ``share_of_peak`` is there where ``times`` has matrix products and ``gflop`` says how many a step has.

    Args:
      times: as ``alternate`` returns them, with ``ours``.
      gflop: matrix products of one step in GFLOP.
    """
    cells = {name: median_cell(found) for name, found in times.items() if not name.startswith(PRODUCT)}
    ours, best = cells["ours"], best_peer(times)
    found: dict[str, dict[str, Any]] = {"ours": ours}
    if best is not None:
        ratio = cells[best]["mean"] / ours["mean"]
        found |= {"best_peer": cells[best], "ratio_to_best_peer": {"mean": ratio, "ci95": None, "n": ours["n"]}}
    if gflop is not None and any(name.startswith(PRODUCT) for name in times):
        share = gflop / (1e-3 * ours["mean"]) / product_rate(times)
        found["share_of_peak"] = {"mean": share, "ci95": None, "n": ours["n"]}
    return found


def best_peer(times: Mapping[str, np.ndarray]) -> str | None:
    """The peer of the least median time, None without peers."""
    peers = [name for name in times if name != "ours" and not name.startswith(PRODUCT)]
    return min(peers, key=lambda name: float(np.median(times[name])), default=None)


def cells_of(measured: Mapping[str, Mapping[str, np.ndarray]], gflop: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Rows of the result file: ours and each peer in ms, and what ``compared`` says.

    Args:
      measured: ``{column: {row: times in ms}}`` as ``alternate`` returns them, with ``ours`` and the matrix products.
      gflop: matrix products of one step in GFLOP, a column.
    """
    rows: dict[str, dict[str, Any]] = {}
    for column, times in measured.items():
        each = {name: median_cell(found) for name, found in times.items() if not name.startswith(PRODUCT)}
        for row, cell in (each | compared(times, gflop[column])).items():
            rows.setdefault(row, {})[column] = cell
    return rows
