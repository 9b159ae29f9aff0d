"""How much memory there is, how much a compiled step asks for, and how much was taken."""

import ctypes
import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self")
MEGA = 1e6


def available(devices: Sequence[Any]) -> float | None:
    """Bytes that a step on ``devices`` can have: of the machine on CPUs, else of the device that has least.

    None where the platform does not say.
    """
    if devices[0].platform != "cpu":
        told = [device.memory_stats() or {} for device in devices]
        free = [stats["bytes_limit"] - stats["bytes_in_use"] for stats in told if "bytes_limit" in stats]
        return float(min(free)) if free else None
    return min((found for found in (_machine(), _group()) if found is not None), default=None)


def compiled_bytes(compiled: Any, devices: Sequence[Any]) -> float:
    """What a compiled step holds at once by its own analysis: arguments, results and temporaries.

    Of all devices together on CPUs, which share the machine's memory, else of one device.
    """
    stats = compiled.memory_analysis()
    each = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
    each -= stats.alias_size_in_bytes
    return float(each * (len(devices) if devices[0].platform == "cpu" else 1))


class Peak:
    """The most memory that was taken since ``start``, in bytes: the process's on CPUs, else the fullest device's."""

    def __init__(self, devices: Sequence[Any]):
        self.devices, self.before = devices, 0.0

    def start(self) -> None:
        """Forgets what was before; memory that is free is given back first, so that its use counts again."""
        gc.collect()
        if self.devices[0].platform == "cpu" and PROCESS.exists():
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
            (PROCESS / "clear_refs").write_text("5")  # the high-water mark starts anew: proc(5)
        self.before = self._high()

    def taken(self) -> float | None:
        """Bytes above what was held at the start; None where the platform does not say, or the peak is an older one."""
        more = self._high() - self.before
        return more if more > 0 else None

    def _high(self) -> float:
        if self.devices[0].platform != "cpu":
            return float(max((device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in self.devices))
        return _field(PROCESS / "status", "VmHWM") or 0.0


def _machine() -> float | None:
    found = _field(Path("/proc/meminfo"), "MemAvailable")
    if found is not None or not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return found
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _group() -> float | None:
    """What a container's limit leaves."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return None if limit == "max" else float(int(limit) - int(used))


def _field(file: Path, name: str) -> float | None:
    """A line such as ``VmHWM:   12 kB`` of a file of /proc, in bytes."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024.0 * int(found[0]) if found else None
