"""Checkpoints by Orbax: written in the background, whole or not at all, with a digest of every array.

The digest is taken of the arrays in memory and stored in the checkpoint itself, so that no moment exists in which a
finished checkpoint lacks it; Orbax alone does not notice a flipped byte in an array file.
"""

import contextlib
import json
import logging
import math
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from metarep_jax.train.storage.arrays import main_process_only
from metarep_jax.train.storage.disk import check_space, explain_full_disk
from metarep_jax.train.storage.inputs import check_same_inputs
from metarep_jax.train.storage.packing import by_name, check_digest, describe, digest_of, pack, unpack
from metarep_jax.train.storage.settings import check_same_config

log = logging.getLogger(__name__)

DELETED = "deleted"  # checkpoints are moved here whole before they are deleted, so that a kill leaves no half of one
WORST = -1e300  # JSON has no infinity


class Restored(NamedTuple):
    """A verified checkpoint: ``tree`` of numpy arrays, and ``extra`` and ``extra_arrays`` as they were saved."""

    step: int
    tree: PyTree
    extra: dict[str, Any]
    extra_arrays: dict[str, np.ndarray]


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
            multiprocessing_options=main_process_only(ocp),
        )
        with explain_full_disk(self.folder, "begun"):
            self.folder.mkdir(parents=True, exist_ok=True)
            if scored:
                self._move_unreadable_scores_aside()
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._delete()

    def save(
        self,
        step: int,
        tree: PyTree,
        extra: dict[str, Any],
        score: float | None = None,
        extra_arrays: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Starts to write; returns before it is on disk. A full disk raises here or at the next call.

        Args:
          step: its number.
          tree: arrays of known structure.
          extra: of JSON's types.
          score: of its validation, higher is better; None is worse than any.
          extra_arrays: arrays that a checkpoint may have or not.

        Raises:
          OSError: when the disk is full; earlier checkpoints are kept.
        """
        if step in self.steps():
            return
        save_args = self._ocp.args
        leaves, meta = pack((tree, extra_arrays or {}))
        given = {"settings": self.settings, "extra": extra, "extra_arrays": sorted(extra_arrays or {})}
        meta |= {"given": given, "given_digest": digest_of(given)}
        scores = {"score": score if score is not None and math.isfinite(score) else WORST} if self._scored else None
        self.wait()  # for the one before
        with explain_full_disk(self.folder, f"written at step {step}"):
            check_space(self.folder, leaves)
            items = save_args.Composite(arrays=save_args.StandardSave(leaves), meta=save_args.JsonSave(meta))
            self._manager.save(step, args=items, metrics=scores, force=True)

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        with explain_full_disk(self.folder, "written"):
            self._manager.wait_until_finished()
        self._delete()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def check_settings(self) -> tuple[int, dict[str, Any] | None]:
        """The latest step and its settings, of the checkpoints whose description is whole; (0, None) without any.

        Raises:
          ValueError: when that one belongs to another config or other inputs.
        """
        for step in reversed(self.steps()):
            try:
                before = self._read_meta(step)["given"]["settings"]
            except Exception as error:  # whatever damage makes the reader raise: restore_last deals with it
                log.debug("checkpoint %d is passed over: %s", step, error)
                continue
            self._check_same(before, step)
            return step, before
        return 0, None

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
        restore = self._ocp.args
        meta = self._read_meta(step)
        given, wanted = meta["given"], describe((like, {}))
        try:
            self._check_same(given["settings"], step)
            check_same_config(by_name(meta["leaves"][: len(wanted)]), by_name(wanted), self._name(step))
        except ValueError as error:
            raise _OtherConfig(str(error)) from error
        packed = self._manager.restore(step, args=restore.Composite(arrays=restore.StandardRestore()))["arrays"]
        leaves = unpack(packed, meta)
        names = given["extra_arrays"] if "extra_arrays" in given else given["loose"]  # its name in earlier versions
        tree = jax.tree.unflatten(jax.tree.structure(like), leaves[: len(wanted)])
        return Restored(step, tree, given["extra"], dict(zip(names, leaves[len(wanted) :], strict=True)))

    def _read_meta(self, step: int) -> dict[str, Any]:
        meta = self._manager.restore(step, args=self._ocp.args.Composite(meta=self._ocp.args.JsonRestore()))["meta"]
        check_digest("its settings", digest_of(meta["given"]), meta["given_digest"])
        return meta

    def _check_same(self, before: dict[str, Any], step: int) -> None:
        check_same_inputs(before.get("inputs"), self.settings.get("inputs"), self._name(step))
        check_same_config(before, self.settings, self._name(step), other_steps=True)

    def _name(self, step: int) -> str:
        return f"the checkpoint {self.folder / str(step)}"

    def _delete(self) -> None:
        shutil.rmtree(self.folder / DELETED, ignore_errors=True)

    def _move_unreadable_scores_aside(self) -> None:
        """Orbax reads all scores at once, and does not begin where one is damaged."""
        for file in sorted(self.folder.glob("[0-9]*/metrics/metrics")):
            try:
                float(json.loads(file.read_text(encoding="utf-8"))["score"])
            except (ValueError, TypeError, KeyError) as error:
                aside = self._aside(int(file.parts[-3]))
                log.warning("%s is damaged (%s); its checkpoint is moved to %s", file, error, aside)

    def _move_aside(self, step: int) -> Path:
        aside = self._aside(step)
        self._manager.reload()
        return aside

    def _aside(self, step: int) -> Path:
        aside = self.folder.parent / "damaged" / str(step)
        aside.parent.mkdir(exist_ok=True)
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        shutil.move(self.folder / str(step), aside)
        return aside

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with explain_full_disk(self.folder, "written") if kind is None else contextlib.suppress(Exception):
            self._manager.close()
        self._delete()


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


class _OtherConfig(Exception):
    """The checkpoint is whole but another run's; not a sign of damage."""
