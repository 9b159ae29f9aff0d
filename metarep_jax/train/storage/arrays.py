"""A tree of arrays on disk, whole or not at all, with a digest."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from metarep_jax.train.storage.disk import check_space, explain_full_disk
from metarep_jax.train.storage.packing import check_digest, digest_of, pack, unpack


def save_tree(folder: Path, tree: PyTree) -> None:
    """Writes nested dicts of arrays to ``folder``, in place of what is there; read by ``load_tree``.

    Raises:
      OSError: when the disk is full; what was there before is kept.
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    part, old = (folder.with_name(folder.name + suffix) for suffix in (".part", ".old"))
    leaves, meta = pack(tree)
    meta["structure"] = jax.tree.unflatten(jax.tree.structure(tree), range(len(meta["leaves"])))
    meta["structure_digest"] = digest_of(meta["structure"])
    with explain_full_disk(folder, "written"), _checkpointer(ocp) as checkpointer:
        check_space(folder.parent, leaves)
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
    folder = Path(folder).absolute()
    if not folder.is_dir() and folder.with_name(folder.name + ".old").is_dir():
        folder = folder.with_name(folder.name + ".old")  # killed between the two renames
    if not folder.is_dir():
        raise FileNotFoundError(f"there are no saved arrays at {folder}")
    leaves, meta = read_packed(folder, "structure")
    return jax.tree.map(lambda index: leaves[index], meta["structure"])


def read_packed(folder: Path, part: str) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The arrays and the description of a tree, or of a checkpoint, in ``folder``.

    Args:
      folder: where they lie.
      part: of the description, with a digest of its own: "structure" of a tree, "given" of a checkpoint.

    Raises:
      ValueError: when a digest shows damage.
    """
    import orbax.checkpoint as ocp

    restore = ocp.args
    try:
        with _checkpointer(ocp) as checkpointer:
            items = restore.Composite(arrays=restore.StandardRestore(), meta=restore.JsonRestore())
            restored = checkpointer.restore(folder, args=items)
        meta = restored["meta"]
        check_digest(f"its {part}", digest_of(meta[part]), meta[f"{part}_digest"])
        return unpack(restored["arrays"], meta), meta
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise ValueError(f"the saved arrays at {folder} are damaged: {error}") from error


def main_process_only(ocp: Any) -> Any:
    """Several processes hold equal copies: the main one writes, and nobody waits for it."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}, barrier_sync_key_prefix="first")


def _checkpointer(ocp: Any) -> Any:
    who = main_process_only(ocp)  # of each part, since each waits for the processes that it knows of
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=who),
        arrays=ocp.StandardCheckpointHandler(multiprocessing_options=who),
        meta=ocp.JsonCheckpointHandler(multiprocessing_options=who),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=who)
