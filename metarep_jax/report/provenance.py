"""Where a number comes from: the commit of the code, the versions of its libraries, and the device."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "metarep_jax", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "numpy",
    "grain", "tensorflow-datasets", "torch", "higher",
)  # fmt: skip
HARMLESS = (":!experiments/results", ":!*.md")  # changes there do not change what the code computes


def commit_of_code() -> str | None:
    """The commit that this package's code is checked out at, "+dirty" appended when tracked code differs from it.

    None when the package does not lie in a git checkout of its own, or git is absent.
    """
    package = Path(__file__).resolve().parents[1]
    if _git(package, "ls-files", "--error-unmatch", "types.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return None
    top = _git(package, "rev-parse", "--show-toplevel") or str(package)
    changed = _git(Path(top), "status", "--porcelain", "--untracked-files=no", "--", ".", *HARMLESS)
    return commit + ("+dirty" if changed else "")


def versions_of_run() -> dict[str, str]:
    """Python's version and those of the installed packages that a number may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_of_run() -> dict[str, Any]:
    """What JAX computes on (``platform``, ``kind``, ``count``, ``processes``), and the ``cpu`` and its ``cores``."""
    import jax

    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "processes": jax.process_count(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
