"""Stage 1: learn features without labels."""

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from metarep_jax.data import (
    Splits,
    batch_feed,
    default_augment,
    large_images_note,
    make_augment,
    stream_reader,
    text_feed,
    with_classmates,
    with_partners,
)
from metarep_jax.encoders import EncoderConfig, encoder_variables, make_encoder
from metarep_jax.model import Model
from metarep_jax.pretrain import ObjectiveConfig, collapse_warning, is_judged_alone, make_objective
from metarep_jax.pretrain.trained import TrainedObjective, save_objective
from metarep_jax.stages.checkpoints import write_card
from metarep_jax.stages.checks import check_encoder_takes, check_rows
from metarep_jax.stages.columns import EvaluateSettings
from metarep_jax.stages.compute import Compute, finished_or_trained, identity_of
from metarep_jax.stages.evaluate import few_shot_columns
from metarep_jax.stages.features import features_model, features_spec
from metarep_jax.train import AXIS, FitConfig, Inputs, OptimiserConfig, fit, on_main_process, pretraining
from metarep_jax.typed_settings import Settings
from metarep_jax.types import Feed, Objective, Partnered, Pool

log = logging.getLogger(__name__)
VALIDATION_EPISODES = 200


@dataclasses.dataclass(frozen=True)
class PretrainSettings(Settings):
    """An objective and its training."""

    objective: ObjectiveConfig = ObjectiveConfig()
    neighbours: int = 0
    """Mutual nearest neighbours, of this many, serve as partners too; 0: only views of the same image. For objectives
    of two views but supcon, whose partners have the label of the image."""
    neighbours_after: int = 0
    """Step from which neighbours serve; they are searched anew every train.refresh_every steps."""
    augment: str = "auto"
    """Views: a preset of metarep_jax.data.images.augment (none, glyph, handwriting, handwriting-strokes, nudge,
    shift, simclr, crop-flip, local-crop); auto: what suits the data, which is said."""
    rotations: bool = False
    """Whether quarter turns of an image are images of their own."""
    whiten: float = 0.25
    """Power of the whitening of the finished features, fitted on training images: 0.25 halves, 0 only centres."""
    epochs: int | None = None
    """Passes over the training examples, in place of the number of steps."""
    optimiser: OptimiserConfig = OptimiserConfig(
        name="adamw", learning_rate=2e-3, weight_decay=1e-4, schedule="cosine", warmup_steps=100
    )
    train: FitConfig = FitConfig(steps=2000, batch_size=256)

    def __post_init__(self):
        super().__post_init__()
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
    encoder, asked = encoder or EncoderConfig(), settings.augment
    settings = with_views(settings, splits)
    identity = identity_of(compute, splits, pretrain=settings, encoder=encoder, make=make.__name__ if make else None)

    def train(inputs: Inputs) -> Model:
        if asked != settings.augment and has_images(splits):
            log.info("views by %s, which suits the data; another by --pretrain.augment", settings.augment)
        if (note := large_images_note(splits)) and jax.default_backend() == "cpu":
            log.warning("%s", note)
        trained, objective = train_objective(settings, splits, compute, encoder=encoder, make=make, inputs=inputs)
        alone = is_judged_alone(objective) or splits.test.count.shape[0] < 2  # then nothing else says what it is worth
        if make is None and alone and on_main_process():
            save_objective(compute.folder, trained)
        variables = encoder_variables(trained.params, trained.state)
        return features_model(features_spec(encoder, splits), variables, splits, settings.whiten)

    return finished_or_trained(compute, "pretrain", identity, splits, train, flags="pretrain")


def with_views(settings: PretrainSettings, splits: Splits) -> PretrainSettings:
    """The settings with the views that suit the data, where these are to choose them."""
    if settings.augment != "auto":
        return settings
    return dataclasses.replace(settings, augment=default_augment(splits))


def train_objective(
    settings: PretrainSettings,
    splits: Splits,
    compute: Compute,
    *,
    encoder: EncoderConfig,
    make: Callable[..., Objective] | None = None,
    inputs: Inputs | None = None,
) -> tuple[TrainedObjective, Objective]:
    """The objective after training, with its heads; goes on, or ends at once, where the folder has checkpoints.

    Args:
      settings, splits, compute, encoder, make: as in ``pretrain``.
      inputs: the digests of what the checkpoints depend on; None: not compared.
    """
    settings = with_views(settings, splits)
    check_encoder_takes(encoder, splits, "--encoder")
    reader = streamed(settings, splits, compute) if splits.config.get("stream") else None
    rows = splits.train.label.shape[0] if reader is None else reader.rows
    train = with_epochs(settings.train, settings.epochs, rows)
    module = make_encoder(encoder, axis_name=AXIS, dtype=compute.dtype)
    augment = make_augment(settings.augment) if has_images(splits) else None
    name = make.__name__ if make else settings.objective.name
    make = make or partial(
        make_objective, settings.objective,
        neighbours=settings.neighbours, neighbours_after=settings.neighbours_after,
    )  # fmt: skip
    objective = make(module, augment=augment, axis_name=AXIS, total_steps=train.steps)
    if "classmates" in objective.needs and not splits.labelled:
        raise ValueError(f"{name} needs labels, and {splits.name} has none; take another --pretrain.objective")
    if splits.tokenizer is None:  # text_feed says more
        check_rows(rows * (4 if settings.rotations else 1), train.batch_size, "--pretrain.train.batch-size")
    feed = training_feed(settings, objective, splits) if reader is None else Feed(train.batch_size, None, reader=reader)
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
        inputs=inputs,
        devices=compute.training_devices(train),
    )
    trained = TrainedObjective(settings.objective, settings.augment, train.steps, fitted.params, fitted.state)
    return trained, objective


def streamed(settings: PretrainSettings, splits: Splits, compute: Compute) -> Any:
    """A reader of the training images from the disk.

    Raises:
      ValueError: for settings that need the images on the device.
    """
    if settings.neighbours or settings.rotations:
        raise ValueError("neighbours and rotations need the images on the device; leave out --data.stream, or these")
    return stream_reader(splits, settings.train.batch_size, seed=compute.seed)


def has_images(splits: Splits) -> bool:
    """Whether the data are images, of which there are views; not text or audio."""
    return splits.train.inputs.ndim == 4


def enough_to_validate(pool: Pool) -> bool:
    """Whether 5-way 1-shot episodes can be drawn from a pool: 5 classes, and a query of each."""
    return pool.count.shape[0] >= 5 and int(np.asarray(pool.count).min()) > 1


def training_feed(settings: PretrainSettings, objective: Objective, splits: Splits) -> Feed:
    """Batches of the training inputs, from the pool on the device, with the partners that the objective needs."""
    pool, size, neighbours = splits.train, settings.train.batch_size, settings.neighbours
    if splits.tokenizer is not None:
        return text_feed(pool, size)
    partnered: Pool | Partnered = pool
    if neighbours:
        partnered = with_partners(pool, neighbours)
    elif "classmates" in objective.needs:
        partnered = with_classmates(pool)
    return batch_feed(partnered, size, rotations=settings.rotations)


def with_epochs(train: FitConfig, epochs: int | None, rows: int) -> FitConfig:
    """``train`` for ``epochs`` passes over ``rows`` rows, or as it is."""
    if epochs is None:
        return train
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    return dataclasses.replace(train, steps=max(epochs * rows // train.batch_size, 1))
