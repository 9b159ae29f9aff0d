"""A trained objective on disk, with its decoder or head, so that it can be judged by itself later.

Imported by its own path: the storage of arrays and the question whom to trust belong to rooms above this one.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cattrs
import jax
import jax.numpy as jnp
from jax.tree_util import DictKey

from metarep_jax.files import atomic_write
from metarep_jax.model.trust import refuse_strangers
from metarep_jax.pretrain.config import ObjectiveConfig
from metarep_jax.train.storage.arrays import load_tree, save_tree

FOLDER = "objective"  # of a stage's folder: config.json and arrays


class TrainedObjective(NamedTuple):
    """An objective after training: its settings, and its parameters, those of the encoder among them."""

    config: ObjectiveConfig
    augment: str  # preset of the views
    total_steps: int
    params: Any
    state: Any


def save_objective(folder: Path, trained: TrainedObjective) -> None:
    """Writes what ``load_objective`` reads to a stage's ``folder``. Trees of anything but dicts are not kept: reading
    would make dicts of them.

    Raises:
      OSError: when the disk is full.
    """
    arrays = {"params": trained.params, "state": trained.state}
    if not all(isinstance(key, DictKey) for path, _ in jax.tree.leaves_with_path(arrays) for key in path):
        return
    save_tree(folder / FOLDER / "arrays", arrays)
    config = {name: getattr(trained, name) for name in ("config", "augment", "total_steps")}
    atomic_write(folder / FOLDER / "config.json", json.dumps(cattrs.unstructure(config), indent=2) + "\n")


def load_objective(folder: Path, *, allow: Sequence[str] | str = ()) -> TrainedObjective | None:
    """The objective that a finished stage 1 left in ``folder``; None where it left none.

    Args:
      folder: of the stage.
      allow: modules, or packages of modules, whose code the objective may name, such as ``["my_module"]``.

    Raises:
      ValueError: when it is damaged, or names code that is not allowed or cannot be imported.
    """
    file = Path(folder) / FOLDER / "config.json"
    if not file.is_file():
        return None
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        refuse_strangers(saved, "it", allow)
        config = cattrs.structure(saved["config"], ObjectiveConfig)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the objective in {file} cannot be used: {error}") from error
    arrays = jax.tree.map(jnp.asarray, load_tree(file.parent / "arrays"))
    return TrainedObjective(config, saved["augment"], saved["total_steps"], arrays["params"], arrays["state"])
