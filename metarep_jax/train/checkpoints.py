"""Checkpoints by Orbax: written in the background, whole or not at all, with a digest of every array.

The digest is taken of the arrays in memory and stored in the checkpoint itself, so that no moment exists in which a
finished checkpoint lacks it; Orbax alone does not notice a flipped byte in an array file.
"""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from metarep_jax.train.run_folder import check_same

log = logging.getLogger(__name__)

SPARE_BYTES = 1 << 20  # asked of the disk beyond the arrays' own size
DELETED = "deleted"  # checkpoints are moved here whole before they are deleted, so that a kill leaves no half of one
WORST = -1e300  # JSON has no infinity


class Restored(NamedTuple):
    """A verified checkpoint: ``tree`` of numpy arrays, and what was given as ``extra`` and ``loose``."""

    step: int
    tree: PyTree
    extra: dict[str, Any]
    loose: dict[str, np.ndarray]


class Checkpoints:
    """The checkpoints of one run, under ``folder``; a context manager that waits for the last write.

    The ``keep`` latest are kept, and, where they are ``scored``, the one with the highest score.
    ``settings`` (JSON's types) is what a checkpoint must agree with to be restored.
    """

    def __init__(self, folder: Path, *, keep: int = 2, scored: bool = False, settings: dict | None = None):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

        logging.getLogger("absl").setLevel(max(logging.getLogger("absl").level, logging.WARNING))
        self._ocp, self._scored = ocp, scored
        self.folder = Path(folder).absolute()
        self.settings = json.loads(json.dumps(settings or {}, default=str))
        best = [policy.BestN(get_metric_fn=_score, n=1)] if scored else []
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(n=keep), *best]),
            best_fn=_score if scored else None,
            create=False,
            cleanup_tmp_directories=True,
            todelete_subdir=DELETED,
            multiprocessing_options=_first_process_only(ocp),
        )
        with clear_disk_errors(self.folder, "begun"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._delete()

    def save(
        self,
        step: int,
        tree: PyTree,
        extra: dict[str, Any],
        score: float | None = None,
        loose: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Starts to write; returns before it is on disk. A full disk raises here or at the next call.

        Args:
          step: its number.
          tree: arrays of known structure.
          extra: of JSON's types.
          score: of its validation, higher is better; None is worse than any.
          loose: arrays that a checkpoint may have or not.

        Raises:
          OSError: when the disk is full; earlier checkpoints are kept.
        """
        if step in self.steps():
            return
        save_args = self._ocp.args
        leaves, meta = _pack((tree, loose or {}))
        given = {"settings": self.settings, "extra": extra}
        meta |= {**given, "given_digest": _digest(given)}
        scores = {"score": score if score is not None and math.isfinite(score) else WORST} if self._scored else None
        self.wait()  # for the one before
        with clear_disk_errors(self.folder, f"written at step {step}"):
            _check_space(self.folder, leaves)
            items = save_args.Composite(arrays=save_args.StandardSave(leaves), meta=save_args.JsonSave(meta))
            self._manager.save(step, args=items, metrics=scores, force=True)

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        with clear_disk_errors(self.folder, "written"):
            self._manager.wait_until_finished()
        self._delete()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def restore_last(self, like: PyTree) -> Restored | None:
        """The latest checkpoint that is whole, or None. A damaged one is moved aside and the one before taken.

        Args:
          like: a tree of the structure, shapes and dtypes to restore.

        Raises:
          ValueError: when the checkpoint belongs to another config.
        """
        return self._restore(like, lambda: self._manager.latest_step())

    def restore_best(self, like: PyTree) -> Restored | None:
        """The checkpoint with the highest score; otherwise as ``restore_last``."""
        return self._restore(like, lambda: self._manager.best_step())

    def _restore(self, like: PyTree, choose: Any) -> Restored | None:
        while (step := choose()) is not None:
            try:
                return self._read(step, like)
            except _OtherConfig as error:
                raise ValueError(str(error)) from error
            except Exception as error:  # whatever a damaged file makes its reader raise
                aside = self._move_aside(step)
                log.warning("checkpoint %d is damaged (%s); moved to %s, using the one before", step, error, aside)
        return None

    def _read(self, step: int, like: PyTree) -> Restored:
        restore, what = self._ocp.args, f"the checkpoint {self.folder / str(step)}"
        meta = self._manager.restore(step, args=restore.Composite(meta=restore.JsonRestore()))["meta"]
        given = {"settings": meta["settings"], "extra": meta["extra"]}
        _check("its settings", _digest(given), meta["given_digest"])
        wanted = _pack((like, {}))[1]["leaves"]
        fixed, loose = meta["leaves"][: len(wanted)], meta["leaves"][len(wanted) :]
        try:
            check_same(meta["settings"], self.settings, what)
            check_same(_by_name(fixed), _by_name(wanted), what)
        except ValueError as error:
            raise _OtherConfig(str(error)) from error
        packed = self._manager.restore(step, args=restore.Composite(arrays=restore.StandardRestore()))["arrays"]
        leaves = _unpack(packed, meta)
        tree = jax.tree.unflatten(jax.tree.structure(like), leaves[: len(wanted)])
        names = [name.removeprefix("[1]['").removesuffix("']") for name, _, _ in loose]
        return Restored(step, tree, meta["extra"], dict(zip(names, leaves[len(wanted) :], strict=True)))

    def _delete(self) -> None:
        shutil.rmtree(self.folder / DELETED, ignore_errors=True)

    def _move_aside(self, step: int) -> Path:
        aside = self.folder.parent / "damaged" / str(step)
        aside.parent.mkdir(exist_ok=True)
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        shutil.move(self.folder / str(step), aside)
        self._manager.reload()
        return aside

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with clear_disk_errors(self.folder, "written") if kind is None else contextlib.suppress(Exception):
            self._manager.close()
        self._delete()


def save_tree(folder: Path, tree: PyTree) -> None:
    """Writes nested dicts of arrays to ``folder``, in place of what is there; read by ``load_tree``.

    Raises:
      OSError: when the disk is full; what was there before is kept.
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    part, old = (folder.with_name(folder.name + suffix) for suffix in (".part", ".old"))
    leaves, meta = _pack(tree)
    meta["structure"] = jax.tree.unflatten(jax.tree.structure(tree), range(len(meta["leaves"])))
    meta["structure_digest"] = _digest(meta["structure"])
    with clear_disk_errors(folder, "written"), _checkpointer(ocp) as checkpointer:
        _check_space(folder.parent, leaves)
        items = ocp.args.Composite(arrays=ocp.args.StandardSave(leaves), meta=ocp.args.JsonSave(meta))
        checkpointer.save(part, args=items, force=True)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_tree(folder: Path) -> PyTree:
    """What ``save_tree`` wrote, as nested dicts of numpy arrays.

    Raises:
      FileNotFoundError: when there is nothing.
      ValueError: when a digest shows damage.
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"there are no saved arrays at {folder}")
    restore = ocp.args
    try:
        with _checkpointer(ocp) as checkpointer:
            items = restore.Composite(arrays=restore.StandardRestore(), meta=restore.JsonRestore())
            found = checkpointer.restore(folder, args=items)
        meta = found["meta"]
        _check("its structure", _digest(meta["structure"]), meta["structure_digest"])
        leaves = _unpack(found["arrays"], meta)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise ValueError(f"the saved arrays at {folder} are damaged: {error}") from error
    return jax.tree.map(lambda index: leaves[index], meta["structure"])


@contextlib.contextmanager
def clear_disk_errors(folder: Path, what: str) -> Iterator[None]:
    """Turns the ways in which a full disk shows itself into one OSError that says so."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if getattr(error, "errno", None) not in _FULL and not any(os.strerror(code) in text for code in _FULL):
            raise
        message = f"a checkpoint in {folder} could not be {what}: the disk is full ({text.splitlines()[0][:200]})"
        raise OSError(errno.ENOSPC, f"{message}. Earlier checkpoints are kept: free space and start again") from error


def _pack(tree: PyTree) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    paths = jax.tree.leaves_with_path(tree)
    leaves = [np.asarray(leaf) for _, leaf in paths]
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    described = [[name, str(leaf.dtype), list(leaf.shape)] for name, leaf in zip(names, leaves, strict=True)]
    packed = {f"{index:05d}": leaf for index, leaf in enumerate(leaves)}
    return packed, {"leaves": described, "digest": _digest(described, *leaves)}


def _unpack(packed: dict[str, Any], meta: dict[str, Any]) -> list[np.ndarray]:
    leaves = [np.asarray(packed[f"{index:05d}"]) for index in range(len(meta["leaves"]))]
    _check("its arrays", _digest(meta["leaves"], *leaves), meta["digest"])
    return leaves


def _by_name(described: list) -> dict[str, Any]:
    return {name: [dtype, shape] for name, dtype, shape in described}


def _digest(described: Any, *leaves: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for leaf in leaves:
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data if leaf.ndim else leaf.tobytes())
    return digest.hexdigest()


def _check(what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ValueError(f"the digest of {what} is {found[:12]}…, wanted {wanted[:12]}…")


def _check_space(folder: Path, leaves: dict[str, np.ndarray]) -> None:
    needed = sum(leaf.nbytes for leaf in leaves.values()) + SPARE_BYTES
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed:,} bytes needed, {free:,} free")


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _first_process_only(ocp: Any) -> Any:
    """Several processes hold equal copies: the first one writes, and nobody waits for it."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}, barrier_sync_key_prefix="first")


def _checkpointer(ocp: Any) -> Any:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(), multiprocessing_options=_first_process_only(ocp))


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _OtherConfig(Exception):
    """The checkpoint is whole but another run's; not a sign of damage."""
