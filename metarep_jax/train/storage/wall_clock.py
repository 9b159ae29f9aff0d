"""The time that a training run took, over all processes that took part in it."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from metarep_jax.files import atomic_write
from metarep_jax.train.metrics import read_lines

FILE = "wall_clock.json"


@contextlib.contextmanager
def counted(folder: Path, device: str, steps: int | None = None) -> Iterator[None]:
    """Adds the time of the block, however it ends, to what earlier processes spent on ``folder``.

    Where ``steps`` are given, a training run that has done them already is only read again, which does not count.
    """
    lines = read_lines(folder / "timing.jsonl")
    if steps is not None and lines and lines[-1]["step"] == steps:
        yield
        return
    begun = time.perf_counter()
    try:
        yield
    finally:
        before = _read(folder)
        seconds = before["seconds"] + time.perf_counter() - begun
        devices = list(dict.fromkeys([*before["devices"], device]))
        atomic_write(folder / FILE, json.dumps({"seconds": round(seconds, 1), "devices": devices}) + "\n")


def seconds_spent(folder: Path) -> float:
    """The time spent on ``folder``. Where a process was killed, the time of those of its steps that were kept."""
    kept, last = 0.0, 0
    for line in read_lines(folder / "timing.jsonl"):
        kept += (line["step"] - last) * line["seconds_per_step"]
        last = line["step"]
    return max(_read(folder)["seconds"], kept)


def devices_used(folder: Path) -> list[str]:
    """The devices that took part, in the order in which they did."""
    return _read(folder)["devices"]


def _read(folder: Path) -> dict:
    file = folder / FILE
    return json.loads(file.read_text()) if file.is_file() else {"seconds": 0.0, "devices": []}
