"""Metrics on disk: JSON lines that depend on the run alone, timings apart from them, and TensorBoard."""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from metarep_jax.files import atomic_write
from metarep_jax.types import Metrics


class MetricsLog:
    """Appends to ``metrics.jsonl``, ``timing.jsonl`` and ``tensorboard/`` under ``folder``; a context manager.

    Opened at ``step``, it first cuts off what an interrupted run wrote past that step, so that an interrupted and
    resumed run leaves the same ``metrics.jsonl`` as one that was not. With ``folder`` None it does nothing.
    """

    def __init__(self, folder: Path | None, step: int, *, tensorboard: bool = True):
        self._files: dict[str, Any] = {}
        self._board: Any = None
        if folder is None:
            return
        for name in ("metrics", "timing"):
            path = Path(folder) / f"{name}.jsonl"
            cut_lines(path, step)
            self._files[name] = path.open("a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, metrics: Metrics) -> None:
        """One line of ``metrics`` (floats) after ``step`` updates."""
        self._append("metrics", {"step": step, **metrics})
        self._show(step, metrics)

    def write_timing(self, step: int, **timing: float) -> None:
        """One line of wall-clock measures, kept out of the metrics because no two runs agree on them."""
        self._append("timing", {"step": step, **timing})
        self._show(step, {f"timing/{name}": value for name, value in timing.items()})

    def flush(self) -> None:
        """Hands everything to the operating system: what was written outlives this process."""
        for file in self._files.values():
            file.flush()
        if self._board is not None:
            self._board.flush()

    def _show(self, step: int, values: Metrics) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _append(self, name: str, line: dict) -> None:
        if name in self._files:
            self._files[name].write(json.dumps(line) + "\n")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()


def read_lines(path: Path) -> list[dict]:
    """The lines of a metrics file; a last line that was cut short by a kill is left out."""
    return [line for _, line in _parsed(path)] if path.is_file() else []


def cut_lines(path: Path, step: int) -> None:
    """Drops the lines past ``step`` from a metrics file, whole or not at all."""
    if not path.is_file():
        return
    kept = "".join(text for text, line in _parsed(path) if line["step"] <= step)
    if kept.encode() != path.read_bytes():
        atomic_write(path, kept)


def mean_metrics(rows: Metrics, seeds: tuple[int, ...]) -> Metrics:
    """Means over a dispatch of per-step metrics [steps] or [steps, seeds], as floats, each a function of ``rows`` only.

    Several seeds give their mean, and one entry a seed beside it.
    """
    means = {name: np.asarray(value, np.float64).mean(0) for name, value in sorted(rows.items())}
    return mean_over_seeds(means, seeds)


def mean_over_seeds(values: Metrics, seeds: tuple[int, ...]) -> Metrics:
    """Scalars as they are; [seeds] vectors as their mean ``name`` and ``name/seed<seed>``."""
    plain = {name: float(np.mean(value)) for name, value in values.items()}
    if len(seeds) == 1:
        return plain
    apart = {f"{name}/seed{seed}": float(v) for name, value in values.items() for seed, v in zip(seeds, value)}
    return plain | apart


def append_metrics(rows: Metrics, more: Metrics) -> Metrics:
    """Per-step metrics of two stretches of steps, one after the other; of an empty stretch, ``rows`` is empty."""
    return {name: np.concatenate([rows[name], leaf]) if rows else leaf for name, leaf in more.items()}


def warn_once(warn: Callable[[Metrics], str | None] | None, say: Callable[[str], None]) -> Callable[[Metrics], None]:
    """Says what ``warn`` finds in the metrics when it starts to find it, not at every dispatch while it lasts."""
    lasting = False

    def check(metrics: Metrics) -> None:
        nonlocal lasting
        message = warn(metrics) if warn else None
        if message and not lasting:
            say(message)
        lasting = message is not None

    return check


def _parsed(path: Path) -> list[tuple[str, dict]]:
    parsed = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if text.endswith("\n") and isinstance(line, dict) and "step" in line:
            parsed.append((text, line))
    return parsed
