"""The objective of stage 1 by itself: kept beside the model with its decoder or head, and judged on test rows.

Objectives of two views are left out: their losses say little by themselves, and nothing can be drawn of them.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import cattrs
import jax
import jax.numpy as jnp
from cattrs import transform_error
from jax.tree_util import DictKey

from experiments.common import Run
from experiments.generated import draw_generated, generated_figures
from experiments.held_out import judge_held_out
from experiments.masked_words import has_masked_words, keep_masked_words, masked_words_figure
from metarep_jax.data import make_augment
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.files import atomic_write
from metarep_jax.pretrain import ObjectiveConfig, has_views, make_objective
from metarep_jax.train import on_main_process
from metarep_jax.train.storage.arrays import load_tree, save_tree

FOLDER = "objective"  # of a stage's folder: config.json and arrays


class Trained(NamedTuple):
    """An objective as it was trained: what made it, and its parameters, those of the encoder among them."""

    config: ObjectiveConfig
    augment: str  # preset of the views
    total_steps: int
    params: Any
    state: Any


def keep_objective(folder: Path, trained: Trained) -> None:
    """Writes what ``kept_objective`` reads; done by the first of several processes. Trees of anything but dicts are not
    kept: reading would make dicts of them."""
    arrays = {"params": trained.params, "state": trained.state}
    dicts = all(isinstance(key, DictKey) for path, _ in jax.tree.leaves_with_path(arrays) for key in path)
    if has_views(trained.config) or not on_main_process() or not dicts:
        return
    save_tree(folder / FOLDER / "arrays", arrays)
    config = {name: getattr(trained, name) for name in ("config", "augment", "total_steps")}
    atomic_write(folder / FOLDER / "config.json", json.dumps(cattrs.unstructure(config), indent=2) + "\n")


def kept_objective(folder: Path) -> Trained | None:
    """The objective that a finished stage 1 left in ``folder``; None where it left none.

    Raises:
      ValueError: when it is damaged, or an objective of one's own cannot be loaded.
    """
    file = Path(folder) / FOLDER / "config.json"
    if not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        config = cattrs.structure(kept["config"], ObjectiveConfig)
    except Exception as error:  # cattrs wraps what a config refuses, a wrong name among it
        raise ValueError(f"the objective in {file} cannot be used: {'; '.join(transform_error(error))}") from error
    arrays = jax.tree.map(jnp.asarray, load_tree(file.parent / "arrays"))
    return Trained(config, kept["augment"], kept["total_steps"], arrays["params"], arrays["state"])


def judge_objective(run: Run, folder: Path, encoder_config: EncoderConfig, trained: Trained) -> None:
    """Writes to ``folder`` what ``held_out_cells`` and ``objective_figures`` find there: losses on the run's test rows
    beside the untrained objective's, reconstructions, interpolations and samples, guesses of hidden words."""
    if has_views(trained.config) or not on_main_process() or not run.splits.test.label.shape[0]:
        return
    encoder, augment = make_encoder(encoder_config), make_augment(trained.augment) if run.has_images else None
    objective = make_objective(trained.config, encoder, augment=augment, total_steps=trained.total_steps)
    judge_held_out(run, folder, trained.config, encoder, objective, trained)
    keep_masked_words(run, folder, trained.config, encoder, trained)
    draw_generated(run, folder, trained.config, encoder, trained)


def objective_figures(run: Run) -> list[Path]:
    """The figures of an objective that was judged in the run's folder, if any."""
    words = [masked_words_figure(run)] if has_masked_words(run.folder) else []
    return [*words, *generated_figures(run.folder)]
