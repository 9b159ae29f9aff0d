"""One folder a run: held by one process, for one config."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metarep_jax.files import atomic_write

DISPLAY = frozenset({"progress", "profile", "tensorboard"})  # settings that change what is shown, and no result


class RunFolderInUse(FileExistsError):
    """Another process works in the run folder."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder that this process holds; ``resumed`` when an earlier process had begun it."""

    path: Path
    resumed: bool


@contextlib.contextmanager
def open_run(folder: Path | str, config: dict[str, Any], *, hold: bool = True) -> Iterator[RunFolder]:
    """Holds ``folder`` for this process and this config, and makes it if need be.

    Args:
      folder: the run's.
      config: of JSON's types (paths and tuples are turned into text and lists); written to ``config.json``.
      hold: False for all but the first of several processes: they neither lock nor write.

    Raises:
      RunFolderInUse: when another process holds it.
      ValueError: when it was begun with another config; names the differing settings. Nothing is changed.
    """
    path = Path(folder)
    if not hold:
        yield RunFolder(path, False)
        return
    with hold_folder(path):
        file = path / "config.json"
        config = json.loads(json.dumps(config, default=str))
        resumed = file.is_file()
        if resumed:
            check_same_config(_read(file), config, f"the run folder {path}")
        else:
            atomic_write(file, json.dumps(config, indent=2) + "\n")
        yield RunFolder(path, resumed)


@contextlib.contextmanager
def hold_folder(folder: Path, name: str = "run") -> Iterator[None]:
    """Makes ``folder`` and locks it until the end of the block, or of the process however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / f".{name}.lock"), folder / f".{name}.pid"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = owner.read_text().strip() if owner.is_file() else "unknown"
        raise RunFolderInUse(
            f"the run folder {folder} is in use by another process (pid {pid}); wait for it, or give another folder"
        ) from None
    try:
        owner.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def check_same_config(before: dict, now: dict, what: str) -> None:
    """Raises ValueError that names the settings in which two configs (nested dicts) differ, but for ``DISPLAY``."""
    if differing := config_differences(before, now, but=DISPLAY):
        raise ValueError(
            f"{what} belongs to another config ({'; '.join(differing)}); use those settings or another folder"
        )


def config_differences(before: dict, now: dict, *, but: frozenset[str] = frozenset()) -> list[str]:
    """The settings in which two configs (nested dicts, one perhaps read from JSON) differ, but for those named.

    One that is None is not given: a setting that came later, with None by default, is no difference.
    """
    old, new = (_flat(json.loads(json.dumps(config, default=str))) for config in (before, now))
    missing = "(absent)"
    return [
        f"{name}: {old.get(name, missing)!r} before, {new.get(name, missing)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name.rpartition(".")[2] not in but
    ]


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged ({error}); restore it or give another folder") from error


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: leaf
        for name, child in tree.items()
        for key, leaf in _flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }
