"""The objective of a finished stage 1 judged by itself on the test rows, where the stage kept it."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metarep_jax.data import Splits, make_augment
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.features import compute_features
from metarep_jax.evaluate.objective_judge import judge_objective
from metarep_jax.files import atomic_write
from metarep_jax.model import Model
from metarep_jax.pretrain import embedding_health, make_objective
from metarep_jax.pretrain.trained import load_objective
from metarep_jax.report import figures
from metarep_jax.report.results import Cells
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.pretrain import has_images
from metarep_jax.stages.result_cells import as_cells
from metarep_jax.train import on_main_process

log = logging.getLogger(__name__)


class Judged(NamedTuple):
    """Rows of cells, and the figures that were drawn; empty where there was nothing to judge."""

    cells: Cells
    figures: list[Path]


def health_rows(models: dict[str, Model], splits: Splits) -> Cells:
    """Signs of collapse of the models' features of test rows: ``feature_std``, near 1 where directions are spread
    evenly, and ``feature_rank``, the effective number of dimensions; for data without classes to be judged by."""
    if splits.test.label.shape[0] < 2:
        return {}
    rows: Cells = {}
    for row, model in models.items():
        features = compute_features(model.embed, splits.test.inputs)
        health = embedding_health(features)
        columns = {"feature_std": health["embedding_std"], "feature_rank": health["effective_rank"]}
        rows[row] = {name: {"mean": float(value), "ci95": None, "n": len(features)} for name, value in columns.items()}
    return rows


def judge_trained(
    folder: Path, encoder: EncoderConfig, splits: Splits, compute: Compute, *, allow: Sequence[str] = ()
) -> Judged:
    """Losses on the test rows beside the untrained objective's, reconstructions, interpolations and samples, guesses of
    hidden words, as far as the objective has them.

    Args:
      folder: of the finished stage.
      encoder: of its model.
      splits: the data; their test rows are judged.
      compute: figures go to its folder, randomness follows from its seed.
      allow: modules whose code the objective may name; see ``metarep_jax.load``.
    """
    trained = load_objective(folder, allow=allow)
    if trained is None or not on_main_process() or not splits.test.label.shape[0]:
        return Judged({}, [])
    log.info("judging %s by itself on %d test rows", trained.config.name, splits.test.label.shape[0])
    augment = make_augment(trained.augment) if has_images(splits) else None
    objective = make_objective(trained.config, make_encoder(encoder), augment=augment, total_steps=trained.total_steps)
    found = judge_objective(
        objective, trained.params, trained.state,
        train=splits.train, test=splits.test, seed=compute.seed, tokenizer=splits.tokenizer,
    )  # fmt: skip
    place = compute.folder / "figures"
    place.mkdir(parents=True, exist_ok=True)
    drawn = []
    if found.words:
        words = json.dumps([word._asdict() for word in found.words], indent=2, default=float)
        atomic_write(compute.folder / "masked_words.json", words + "\n")
        drawn.append(place / "masked_words.png")
        figures.save_masked_words(drawn[-1], found.words)
    if found.pictures.reconstructions is not None:
        drawn.append(place / "reconstructions.png")
        figures.save_reconstructions(drawn[-1], found.pictures.reconstructions)
    if found.pictures.interpolations is not None:
        drawn.append(place / "interpolations.png")
        figures.save_interpolations(drawn[-1], *found.pictures.interpolations)
    if found.pictures.samples is not None:
        drawn.append(place / "samples.png")
        figures.save_samples(drawn[-1], found.pictures.samples)
    return Judged({row: as_cells(columns) for row, columns in found.rows.items()}, drawn)
