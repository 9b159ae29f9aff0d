"""Prepared arrays kept in a folder of the user's, so that a second start is quick. A cache may always be deleted."""

import hashlib
import logging
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from metarep_jax.files import atomic_open

log = logging.getLogger(__name__)
Arrays = dict[str, np.ndarray]


def default_cache_dir() -> Path:
    """The platform's folder for caches of a user's programs, with ``metarep_jax`` below it."""
    home = Path.home()
    if sys.platform == "win32":
        return home / "AppData" / "Local" / "metarep_jax" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "metarep_jax"
    return home / ".cache" / "metarep_jax"


def digest(parts: Iterable[object]) -> str:
    """A short name for what prepared arrays depend on; anything that changes gives another."""
    found = hashlib.sha256()
    for part in parts:
        found.update(repr(part).encode() + b"\0")
    return found.hexdigest()[:16]


def digest_of_arrays(arrays: Iterable[np.ndarray], names: object = ()) -> str:
    """A short name for the values, shapes and types of arrays, and for ``names`` beside them."""
    total = hashlib.blake2b(repr(names).encode(), digest_size=8)
    for array in arrays:
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def file_facts(path: Path) -> tuple[str, int, int]:
    """Name, size and time of change: enough to notice that a file is another."""
    facts = path.stat()
    return path.name, facts.st_size, facts.st_mtime_ns


def cached(folder: Path, name: str, key: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of ``build()``, from ``folder/name-key.npz`` where an earlier run left them.

    Written whole or not at all. A damaged file (npz members carry a checksum) is built again, and a disk that is
    full costs the cache but not the run; both are logged.
    """
    path = folder / f"{name}-{key}.npz"
    if path.is_file():
        try:
            with path.open("rb") as file, np.load(file) as archive:
                return {member: archive[member] for member in archive.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            log.warning("the cache %s is damaged (%s) and is built again", path, error)
    arrays = build()
    try:
        with atomic_open(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        log.warning("the cache %s cannot be written (%s); the next start prepares the data again", path, error)
    return arrays
