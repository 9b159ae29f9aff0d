"""Stage 1: learn features without labels."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from metarep_jax.data import Splits, batch_feed, make_augment, stream_reader, text_feed, with_classmates, with_partners
from metarep_jax.encoders import EncoderConfig, check_inputs, encoder_variables, make_encoder
from metarep_jax.model import Model
from metarep_jax.pretrain import ObjectiveConfig, collapse_warning, make_objective, pairs_classmates
from metarep_jax.pretrain.trained import TrainedObjective, keep_objective
from metarep_jax.stages.cards import write_card
from metarep_jax.stages.compute import Compute, finished_or_trained, identity_of
from metarep_jax.stages.evaluate import EvaluateSettings, few_shot_columns
from metarep_jax.stages.features import features_model, features_spec
from metarep_jax.train import AXIS, FitConfig, OptimiserConfig, fit, pretraining
from metarep_jax.types import Feed, Objective, Partnered, Pool

VALIDATION_EPISODES = 200


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


def pretrain(
    settings: PretrainSettings,
    splits: Splits,
    compute: Compute,
    *,
    encoder: EncoderConfig | None = None,
    make: Callable[..., Objective] | None = None,
) -> Model:
    """Features learned from the training inputs, without their labels, as a nearest-prototype model.

    Args:
      settings: the objective and its training.
      splits: the data; labels serve validation and ``supcon`` alone.
      compute: the folder that is written, and the seed.
      encoder: which one to train; default: conv4.
      make: gives the objective in place of ``settings.objective``; takes what ``make_objective`` does after the config.

    Raises:
      ValueError: before anything is trained, for settings that do not fit each other, the data or the folder.
    """
    encoder = encoder or EncoderConfig()
    identity = identity_of(compute, splits, pretrain=settings, encoder=encoder, make=make.__name__ if make else None)

    def train() -> Model:
        trained = train_objective(settings, splits, compute, encoder=encoder, make=make)
        keep_objective(compute.folder, trained)
        variables = encoder_variables(trained.params, trained.state)
        return features_model(features_spec(encoder, splits), variables, splits, settings.whiten)

    return finished_or_trained(compute, "pretrain", identity, splits, train)


def train_objective(
    settings: PretrainSettings,
    splits: Splits,
    compute: Compute,
    *,
    encoder: EncoderConfig,
    make: Callable[..., Objective] | None = None,
) -> TrainedObjective:
    """The objective after training, with its heads; goes on, or ends at once, where the folder has checkpoints."""
    check_inputs(encoder, splits.train.inputs, 0 if splits.tokenizer is None else splits.tokenizer.size)
    feed, rows = training_feed(settings, splits, compute)
    train = with_epochs(settings.train, settings.epochs, rows)
    module = make_encoder(encoder, axis_name=AXIS, dtype=compute.dtype)
    augment = make_augment(settings.augment) if has_images(splits) else None
    name = make.__name__ if make else settings.objective.name
    make = make or partial(
        make_objective, settings.objective,
        neighbours=settings.neighbours, neighbours_after=settings.neighbours_after,
    )  # fmt: skip
    objective = make(module, augment=augment, axis_name=AXIS, total_steps=train.steps)
    card = features_spec(encoder, splits)
    write_card(compute.folder, card, settings.whiten)

    def validate(params: Any, state: Any, step: int) -> dict[str, float]:
        del step
        model = features_model(card, encoder_variables(params, state), splits, settings.whiten)
        specs = EvaluateSettings(ways=(5,), shots=(1,)).specs(splits.protocol, splits.val)
        columns = few_shot_columns(model, splits, specs, compute, part="val", episodes=VALIDATION_EPISODES)
        return {f"val_{column}": value.mean for column, value in columns.items()}

    fitted = fit(
        pretraining(objective),
        feed,
        optimiser=settings.optimiser,
        config=train,
        seed=compute.seed,
        folder=compute.folder,
        validate=validate if enough_to_validate(splits.val) else None,
        warn=collapse_warning,
        description=f"pretrain ({name})",
        settings=identity_of(compute, splits, pretrain=settings, encoder=encoder, make=name),
        devices=compute.training_devices(train),
    )
    return TrainedObjective(settings.objective, settings.augment, train.steps, fitted.params, fitted.state)


def has_images(splits: Splits) -> bool:
    """Whether the data are images, of which there are views; not text or audio."""
    return splits.train.inputs.ndim == 4


def enough_to_validate(pool: Pool) -> bool:
    """Whether 5-way 1-shot episodes can be drawn from a pool: 5 classes, and a query of each."""
    return pool.count.shape[0] >= 5 and int(np.asarray(pool.count).min()) > 1


def training_feed(settings: PretrainSettings, splits: Splits, compute: Compute) -> tuple[Feed, int]:
    """Batches of the training images, from the pool on the device or streamed from the disk, and images an epoch."""
    pool, size, neighbours = splits.train, settings.train.batch_size, settings.neighbours
    if splits.config.stream:
        if neighbours or settings.rotations:
            raise ValueError(
                "neighbours and rotations need the images on the device; leave out --data.stream, or these"
            )
        reader = stream_reader(splits, size, seed=compute.seed)
        return Feed(size, None, reader=reader), reader.rows
    if splits.tokenizer is not None:
        return text_feed(pool, size), pool.label.shape[0]
    partnered: Pool | Partnered = pool
    if neighbours:
        partnered = with_partners(pool, neighbours)
    elif pairs_classmates(settings.objective):
        partnered = with_classmates(pool)
    return batch_feed(partnered, size, rotations=settings.rotations), pool.label.shape[0]


def with_epochs(train: FitConfig, epochs: int | None, rows: int) -> FitConfig:
    """``train`` for ``epochs`` passes over ``rows`` rows, or as it is."""
    if epochs is None:
        return train
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    return dataclasses.replace(train, steps=max(epochs * rows // train.batch_size, 1))
