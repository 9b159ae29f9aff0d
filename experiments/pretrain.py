"""Stage 1: learn features without labels, and judge them on unseen classes.

    python -m experiments.pretrain                                  # glyphs, a few minutes on a laptop
    python -m experiments.pretrain --data.name omniglot --data.data-dir DIR
    python -m experiments.pretrain --pretrain.objective.name my_module:my_objective
    python -m experiments.pretrain --data.name folder --data.data-dir DIR --data.image-size 32 --encoder.name resnet18
    python -m experiments.pretrain --data.name docstrings --encoder.name transformer --pretrain.objective.name masked_lm
    python -m experiments.pretrain --data.name synthetic-speech --encoder.name waveform --pretrain.objective.name cpc

Writes config, metrics, checkpoints, figures, report.md, result.json and the model; the same command resumes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from experiments.checkpoints import announce
from experiments.cli import parse
from experiments.common import CommonConfig, Run, finish, run_experiment, stage, training_settings
from experiments.evaluate import EvaluateSettings, cells_of, evaluate_model, joined
from experiments.features import features_model, features_spec, untrained_model
from experiments.figures import curves_figure, embedding_figure, views_figure
from experiments.objectives import held_out_cells, judge_in_folder, keep_objective, objective_figures
from metarep_jax.data import batch_feed, make_augment, stream_reader, text_feed, with_classmates, with_partners
from metarep_jax.encoders import check_inputs, encoder_variables, make_encoder
from metarep_jax.model import Model
from metarep_jax.pretrain import ObjectiveConfig, collapse_warning, make_objective
from metarep_jax.pretrain.trained import TrainedObjective
from metarep_jax.train import AXIS, FitConfig, OptimiserConfig, compute_dtype, fit, pretraining
from metarep_jax.types import Feed, Need, Objective, Partnered, Pool


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """An objective and its training."""

    objective: ObjectiveConfig = ObjectiveConfig()
    neighbours: int = 0
    """Mutual nearest neighbours, of this many, serve as partners too; 0: only views of the same image. For objectives
    of two views but supcon, whose partners have the label of the image."""
    neighbours_after: int = 0
    """Step from which neighbours serve; they are searched anew every train.refresh_every steps."""
    augment: str = "glyph"
    """Views: a preset of metarep_jax.data.augment (none, glyph, handwriting, handwriting-strokes, nudge,
    shift, simclr, crop-flip, local-crop)."""
    rotations: bool = False
    """Whether quarter turns of an image are images of their own."""
    whiten: float = 0.25
    """Power of the whitening of the finished features, fitted on training images: 0.25 halves, 0 only centres."""
    epochs: int | None = None
    """Passes over the training images; overrides train.steps."""
    optimiser: OptimiserConfig = OptimiserConfig(
        name="adamw", learning_rate=2e-3, weight_decay=1e-4, schedule="cosine", warmup_steps=100
    )
    train: FitConfig = FitConfig(steps=2000, batch_size=256)

    def __post_init__(self):
        for field in ("neighbours", "neighbours_after"):
            if getattr(self, field) < 0:
                raise ValueError(f"pretrain.{field} must not be negative, got {getattr(self, field)}")


@dataclasses.dataclass(frozen=True)
class PretrainConfig(CommonConfig):
    """Flags of experiments.pretrain."""

    shorthands: ClassVar[dict[str, str]] = {"objective": "pretrain.objective"}

    pretrain: PretrainSettings = PretrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


def pretrain_stage(run: Run, settings: PretrainSettings, folder: Path) -> Model:
    """The pretrained features; taken from ``folder`` when an earlier run finished them there."""
    return stage(folder, "pretrain", lambda: pretrained_model(run, settings, folder), settings.train)


def pretrained_model(run: Run, settings: PretrainSettings, folder: Path) -> Model:
    """Trains stage 1, keeps its objective and judges it, and gives its features."""
    trained = train_objective(run, settings, folder)
    keep_objective(run, folder, run.config.encoder, trained)
    judge_in_folder(run, folder, run.config.encoder, trained)
    return features_model(run, encoder_variables(trained.params, trained.state), settings.whiten)


def train_objective(
    run: Run, settings: PretrainSettings, folder: Path, make: Callable[..., Objective] | None = None
) -> TrainedObjective:
    """The objective after training, with its heads; goes on, or ends at once, where ``folder`` has checkpoints.

    ``make``: gives the objective, in place of ``settings.objective``; takes what ``make_objective`` does after the
    config.
    """
    config = run.config
    check_inputs(config.encoder, run.splits.train.inputs, run.vocabulary)
    reader = streamed(run, settings) if run.splits.config.stream else None
    rows = run.splits.train.label.shape[0] if reader is None else reader.rows
    train = with_epochs(settings.train, settings.epochs, rows)

    encoder = make_encoder(config.encoder, axis_name=AXIS, dtype=compute_dtype(config.precision))
    augment = make_augment(settings.augment) if run.has_images else None
    if make is None:
        searched = {"neighbours": settings.neighbours, "neighbours_after": settings.neighbours_after}
        make, name = partial(make_objective, settings.objective, **searched), settings.objective.name
    else:
        name = make.__name__
    objective = make(encoder, augment=augment, axis_name=AXIS, total_steps=train.steps)
    size = settings.train.batch_size
    feed = training_feed(run, settings, objective.needs) if reader is None else Feed(size, None, reader=reader)
    announce(folder, features_spec(run, config.encoder), settings.whiten)

    def validate(params: Any, state: Any, step: int) -> dict[str, float]:
        del step
        model = features_model(run, encoder_variables(params, state), settings.whiten)
        spec = EvaluateSettings(ways=(5,), shots=(1,), episodes=200).specs(run.splits.protocol, run.splits.val)
        found = evaluate_model(run, model, run.splits.val, spec, episodes=200)
        return {f"val_{column}": value.mean for column, value in found.items()}

    fitted = fit(
        pretraining(objective),
        feed,
        optimiser=settings.optimiser,
        config=train,
        seed=config.seed,
        folder=folder,
        validate=validate if enough_to_validate(run.splits.val) else None,
        warn=collapse_warning,
        description=f"pretrain ({name})",
        settings=training_settings(config),
        devices=run.devices_of(train),
    )
    return TrainedObjective(settings.objective, settings.augment, train.steps, fitted.params, fitted.state)


def enough_to_validate(pool: Pool) -> bool:
    """Whether 5-way 1-shot episodes can be drawn from a pool: 5 classes, and a query of each."""
    return pool.count.shape[0] >= 5 and int(np.asarray(pool.count).min()) > 1


def streamed(run: Run, settings: PretrainSettings) -> Any:
    """The training images, streamed from the disk."""
    if settings.neighbours or settings.rotations:
        raise ValueError("neighbours and rotations need the images on the device; leave out --data.stream, or these")
    return stream_reader(run.splits, settings.train.batch_size, seed=run.config.seed)


def training_feed(run: Run, settings: PretrainSettings, needs: tuple[Need, ...]) -> Feed:
    """Batches of the training rows, from the pool on the device, with the partners that the objective needs."""
    pool, size, neighbours = run.splits.train, settings.train.batch_size, settings.neighbours
    if run.splits.tokenizer is not None:
        return text_feed(pool, size)
    partnered: Pool | Partnered = pool
    if neighbours:
        partnered = with_partners(pool, neighbours)
    elif "classmates" in needs:
        partnered = with_classmates(pool)
    return batch_feed(partnered, size, rotations=settings.rotations)


def with_epochs(train: FitConfig, epochs: int | None, rows: int) -> FitConfig:
    """``train`` for ``epochs`` passes over ``rows`` rows, or as it is."""
    if epochs is None:
        return train
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    return dataclasses.replace(train, steps=max(epochs * rows // train.batch_size, 1))


def work(run: Run) -> None:
    settings = run.config.pretrain
    model = pretrain_stage(run, settings, run.folder)
    rows = {"untrained": untrained_model(run, settings.whiten), "pretrained": model}
    cells = joined(cells_of(run, rows, run.config.evaluate), held_out_cells(run.folder))
    paths = [
        *([views_figure(run, settings.augment)] if run.has_images else []),
        curves_figure(run, {"pretrain": run.folder}),
        *([embedding_figure(run, model)] if run.has_classes else []),
        *objective_figures(run.folder),
    ]
    finish(run, cells, figure_paths=paths)


if __name__ == "__main__":
    run_experiment("pretrain", work, parse(PretrainConfig, __doc__))
