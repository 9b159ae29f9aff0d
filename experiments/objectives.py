"""The objective of stage 1 by itself: kept beside the model with its decoder or head, and judged on test rows.

Objectives of two views are left out: their losses say little by themselves, and nothing can be drawn of them.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import cattrs
import jax
import jax.numpy as jnp

from experiments.common import Run
from experiments.generated import draw_generated, generated_figures
from experiments.held_out import judge_held_out
from experiments.masked_words import has_masked_words, keep_masked_words, masked_words_figure
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.factories import named_factory, needs
from metarep_jax.pretrain import OBJECTIVES, ObjectiveConfig, make_objective
from metarep_jax.train import is_first
from metarep_jax.train.metrics import replace_file
from metarep_jax.train.trees import load_tree, save_tree

FOLDER = "objective"  # of a stage's folder: config.json and arrays


class Trained(NamedTuple):
    """An objective and what training made of it: the encoder's parameters and its own."""

    config: ObjectiveConfig
    params: Any
    state: Any


def keep_objective(folder: Path, trained: Trained) -> None:
    """Writes what ``kept_objective`` reads; done by the first of several processes."""
    if has_views(trained.config) or not is_first():
        return
    save_tree(folder / FOLDER / "arrays", {"params": trained.params, "state": trained.state})
    replace_file(folder / FOLDER / "config.json", json.dumps(cattrs.unstructure(trained.config), indent=2) + "\n")


def kept_objective(folder: Path) -> Trained | None:
    """The objective that a finished stage 1 left in ``folder``; None where it left none."""
    file = Path(folder) / FOLDER / "config.json"
    if not file.is_file():
        return None
    config = cattrs.structure(json.loads(file.read_text(encoding="utf-8")), ObjectiveConfig)
    arrays = jax.tree.map(jnp.asarray, load_tree(file.parent / "arrays"))
    return Trained(config, arrays["params"], arrays["state"])


def judge_objective(run: Run, folder: Path, encoder_config: EncoderConfig, trained: Trained) -> None:
    """Writes to ``folder`` what ``held_out_cells`` and ``objective_figures`` find there: losses on the run's test rows
    beside the untrained objective's, reconstructions, interpolations and samples, guesses of hidden words."""
    if has_views(trained.config) or not is_first() or not run.splits.test.label.shape[0]:
        return
    encoder = make_encoder(encoder_config)
    judge_held_out(run, folder, trained.config, encoder, make_objective(trained.config, encoder), trained)
    keep_masked_words(run, folder, trained.config, encoder, trained)
    draw_generated(run, folder, trained.config, encoder, trained)


def objective_figures(run: Run) -> list[Path]:
    """The figures of an objective that was judged in the run's folder, if any."""
    words = [masked_words_figure(run)] if has_masked_words(run.folder) else []
    return [*words, *generated_figures(run.folder)]


def has_views(config: ObjectiveConfig) -> bool:
    """Whether the objective is one of two views of an image."""
    return needs(named_factory(config.name, OBJECTIVES, "objective"), "augment")
