"""One folder a run: held by one process, for one config and one set of inputs."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metarep_jax.files import atomic_write
from metarep_jax.train.storage.inputs import Inputs, check_same_inputs, names_of
from metarep_jax.train.storage.settings import changed_steps, check_same_config


class RunFolderInUse(FileExistsError):
    """Another process works in the run folder."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder that this process holds.

    Attributes:
      path: where it lies.
      resumed: whether an earlier process had begun it.
      changed_steps: numbers of steps (or epochs) that differ from those it was begun with, by the settings' names:
        before and now. Models that were trained with another number must be trained on, with ``fit``.
    """

    path: Path
    resumed: bool
    changed_steps: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def open_run(
    folder: Path | str,
    config: dict[str, Any],
    *,
    inputs: Inputs | None = None,
    other_steps: bool = False,
    hold: bool = True,
    name: str = "config",
) -> Iterator[RunFolder]:
    """Holds ``folder`` for this process, config and inputs, and makes it if need be.

    A new folder gets ``config.json``: the config, and the ``inputs``. When the block ends without an error after
    another number of steps, that number and a ``history`` of what it was are written to it. When it ends with a
    ValueError or OSError before anything was trained, a new folder's file is taken back: what was refused binds no
    later run.

    Args:
      folder: the run's.
      config: of JSON's types (paths and tuples are turned into text and lists).
      inputs: what the run is computed from, such as ``{"data": {"name": ..., "digest": ...}}``; also "start" and
        "teacher". A setting of such a name, which says where the input lies, is then not compared.
      name: of the file; two that hold one folder, such as a run and its stage, have two.
      other_steps: whether another number of steps goes on with the run, and is none of another config; see
        ``RunFolder.changed_steps`` for what the caller must then do.
      hold: False for all but the main one of several processes: they neither lock nor write.

    Raises:
      RunFolderInUse: when another process holds it.
      ValueError: when it was begun with another config or other inputs; names both. Nothing is changed.
    """
    path = Path(folder)
    if not hold:
        yield RunFolder(path, False)
        return
    with hold_folder(path, "run" if name == "config" else name):
        file, what = path / f"{name}.json", f"the run folder {path}"
        config = json.loads(json.dumps(config, default=str))
        if not file.is_file():
            atomic_write(file, _text(config | ({} if inputs is None else {"inputs": inputs})))
            try:
                yield RunFolder(path, resumed=False)
            except (ValueError, OSError):
                if not any(path.glob("**/checkpoints/*")) and not any(path.glob("**/model/spec.json")):
                    file.unlink(missing_ok=True)
                raise
            return
        recorded = _read(file)
        by_digest = recorded.get("inputs", {}).keys() & (inputs or {}).keys()
        elsewhere = names_of(recorded.get("inputs")) != names_of(inputs)
        if elsewhere:  # else settings come first, since some of them change what is read from the same place
            check_same_inputs(recorded.get("inputs"), inputs, what)
        check_same_config(_without(recorded, by_digest), _without(config, by_digest), what, other_steps=other_steps)
        check_same_inputs(recorded.get("inputs"), inputs, what)
        steps = changed_steps(recorded, config)
        yield RunFolder(path, resumed=True, changed_steps=steps)
        if steps:
            changes = [{"setting": name, "before": before, "now": now} for name, (before, now) in steps.items()]
            history = [*recorded.get("history", []), *changes]
            kept = {"inputs": recorded["inputs"]} if "inputs" in recorded else {}
            atomic_write(file, _text(config | kept | {"history": history}))


@contextlib.contextmanager
def hold_folder(folder: Path, name: str = "run") -> Iterator[None]:
    """Makes ``folder`` and locks it until the end of the block, or of the process however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(place for place in (folder, *folder.parents) if place.exists())
        raise NotADirectoryError(f"{file} is a file, no folder; give another --run-folder than {folder}") from error
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


def _without(tree: Any, names: Any) -> Any:
    """The nested dicts without the leaves of these names."""
    if not isinstance(tree, dict):
        return tree
    kept = {name: child for name, child in tree.items() if name not in names or isinstance(child, dict)}
    return {name: _without(child, names) for name, child in kept.items()}


def _text(config: dict) -> str:
    return json.dumps(config, indent=2) + "\n"


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged ({error}); restore it or give another folder") from error
