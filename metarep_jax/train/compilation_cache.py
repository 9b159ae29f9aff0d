"""Compiled programs kept on the disk, so that a second start need not compile them. A cache may always be deleted."""

import hashlib
import logging
import platform
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30  # of a folder; a short pretraining of Conv4-32 with its evaluation left 1.2 MB
LEAST_SECONDS = 0.2  # of compiling, by choice, not measured: JAX's own least is 1


def use_compilation_cache(folder: Path, most: int = MOST_BYTES) -> None:
    """Has JAX keep what it compiles below ``folder``, at most so many bytes: the least recently used are deleted.

    Each kind of processor has a folder of its own there, since machines that share a disk need not share instructions.
    Without effect where JAX has been given a cache already (``jax_compilation_cache_dir``), and where ``folder`` cannot
    be written, which is said.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir:
        return
    place = folder / _processor()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_compilation_cache_max_size", most)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)


def _processor() -> str:
    """A name for what the processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {
        line for line in lines if line.partition(":")[0].strip() in ("model name", "flags", "Features", "CPU part")
    }
    text = "\n".join([platform.machine(), platform.processor(), *sorted(facts)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
