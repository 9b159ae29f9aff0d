"""The objective of stage 1 by itself, in a stage's folder: kept beside the model, judged on test rows, drawn.

Objectives whose loss says little by itself, those of two views, are left out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import Run
from metarep_jax.data import make_augment
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.evaluate.objective_judge import Pictures, judge_objective
from metarep_jax.files import atomic_write
from metarep_jax.pretrain import is_judged_alone, make_objective
from metarep_jax.pretrain.trained import TrainedObjective, save_objective
from metarep_jax.report import figures
from metarep_jax.train import on_main_process
from metarep_jax.types import Objective

HELD_OUT = "held_out.json"
FIGURES = ("masked_words", "reconstructions", "interpolations", "samples")


def keep_objective(run: Run, folder: Path, encoder: EncoderConfig, trained: TrainedObjective) -> None:
    """Saves the objective in ``folder``, if it can be judged by itself; done by the first of several processes."""
    if on_main_process() and is_judged_alone(single_device(run, encoder, trained)):
        save_objective(folder, trained)


def judge_in_folder(run: Run, folder: Path, encoder: EncoderConfig, trained: TrainedObjective) -> None:
    """Writes to ``folder`` what ``held_out_cells`` and ``objective_figures`` read there."""
    objective = single_device(run, encoder, trained)
    if not (on_main_process() and is_judged_alone(objective) and run.splits.test.label.shape[0]):
        return
    splits = run.splits
    report = judge_objective(
        objective,
        trained.params,
        trained.state,
        train=splits.train,
        test=splits.test,
        seed=run.config.seed,
        tokenizer=splits.tokenizer,
    )
    cells = {row: {column: value.cell() for column, value in of.items()} for row, of in report.rows.items()}
    atomic_write(folder / HELD_OUT, json.dumps(cells, indent=2) + "\n")
    place = folder / "figures"
    place.mkdir(parents=True, exist_ok=True)
    draw_pictures(place, report.pictures)
    if report.words:
        words = [word._asdict() for word in report.words]
        atomic_write(folder / "masked_words.json", json.dumps(words, indent=2) + "\n")
        figures.save_masked_words(place / "masked_words.png", report.words)


def single_device(run: Run, encoder: EncoderConfig, trained: TrainedObjective) -> Objective:
    """The objective made without ``axis_name``."""
    augment = make_augment(trained.augment) if run.has_images else None
    return make_objective(trained.config, make_encoder(encoder), augment=augment, total_steps=trained.total_steps)


def draw_pictures(place: Path, pictures: Pictures) -> None:
    """Draws those that there are."""
    if pictures.reconstructions is not None:
        figures.save_reconstructions(place / "reconstructions.png", pictures.reconstructions)
    if pictures.interpolations is not None:
        figures.save_interpolations(place / "interpolations.png", *pictures.interpolations)
    if pictures.samples is not None:
        figures.save_samples(place / "samples.png", np.asarray(pictures.samples))


def held_out_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """The cells of a stage that was judged: rows "untrained", "pretrained" and any baseline; {} where it was not."""
    file = folder / HELD_OUT
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def objective_figures(folder: Path) -> list[Path]:
    """The figures of an objective that was judged in ``folder``, if any."""
    paths = [folder / "figures" / f"{name}.png" for name in FIGURES]
    return [path for path in paths if path.is_file()]
