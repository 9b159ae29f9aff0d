"""Stage 3: hand what a model knows to a smaller one: on episodes, on fixed classes, or feature by feature."""

import dataclasses
from typing import Any, Literal

from metarep_jax.data import Splits, augmented_feed, episode_feed, make_augment
from metarep_jax.distill import (
    LossConfig,
    as_objective,
    classifier,
    distil_few_shot,
    feature_loss,
    feature_regression,
    frozen_teacher,
    make_loss,
    targets_by_index,
)
from metarep_jax.encoders import EncoderConfig, encoder_variables, make_encoder
from metarep_jax.encoders.features import compute_features, unit_rows
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.stages.checkpoints import write_card
from metarep_jax.stages.compute import Compute, finished_or_trained, identity_of
from metarep_jax.stages.evaluate import averaged_features
from metarep_jax.stages.features import features_model, features_spec, tokenizer_digest
from metarep_jax.stages.metatrain import training_episode, validation
from metarep_jax.stages.pretrain import PretrainSettings, has_images, train_objective, with_epochs
from metarep_jax.stages.transfer import ClassSettings, train_on_classes
from metarep_jax.train import FitConfig, OptimiserConfig, fit
from metarep_jax.types import EpisodeSpec, Objective

DistilMode = Literal["few-shot", "classes", "features"]


@dataclasses.dataclass(frozen=True)
class DistilSettings:
    """A student, its loss, and its training."""

    student: EncoderConfig = EncoderConfig(width=18)
    """The student's encoder."""
    learner: LearnerConfig = LearnerConfig("prototypical")
    """The student's learner (few-shot)."""
    loss: LossConfig = LossConfig()
    """What the student minimises (few-shot, classes)."""
    episode: EpisodeSpec = EpisodeSpec(way=20, shot=1, query=5)
    """The training episode (few-shot). Rotations "none" here means those of the protocol."""
    augment: str = "none"
    """Augmentation in training: a preset of metarep_jax.data.augment. features: views of each image, and not "none"."""
    views: int = 0
    """features: of each image, over which the teacher's features are averaged."""
    epochs: int | None = None
    """Passes over the training images; overrides train.steps."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-3, schedule="cosine")
    train: FitConfig = FitConfig(steps=2000, batch_size=2, validate_every=500)
    """few-shot: batch_size counts tasks."""
    validation_episodes: int = 200
    """Episodes on validation classes, by which the best checkpoint is chosen (few-shot)."""


def distil(
    settings: DistilSettings, splits: Splits, teacher: Model, compute: Compute, *, mode: DistilMode = "few-shot"
) -> Model:
    """The student.

    - "few-shot": teacher and student both adapt on an episode's support set and meet on its queries. A learner.
    - "classes": the student learns the training classes from a teacher that classifies them. A classifier.
    - "features": the student predicts the teacher's features from views of the training images; no labels. Features.

    Args:
      settings: the student and its training.
      splits: the data.
      teacher: a learner, a classifier of the training classes, or any model, as the mode needs.
      compute: the folder that is written, and the seed.
      mode: see above.

    Raises:
      ValueError: before anything is trained, for a teacher or settings that do not fit the mode or the data.
    """
    settings = dataclasses.replace(settings, student=fitted_encoder(settings.student, splits))
    if mode == "few-shot":
        return _on_episodes(settings, splits, teacher, compute)
    if mode == "features":
        return _by_features(settings, splits, teacher, compute)
    names = splits.class_names["train"]
    if teacher.spec.kind != "classifier" or teacher.spec.class_names != names:
        raise ValueError(
            "mode classes needs a teacher that classifies these training classes; train one by "
            "python -m experiments.transfer --mode supervised, or fine-tune"
        )
    encoder = make_encoder(teacher.spec.encoder, dtype=compute.dtype)
    model = classifier(encoder, len(names), frozen="frozen" in teacher.state)
    return train_on_classes(
        ClassSettings(settings.student, settings.augment, settings.epochs, settings.optimiser, settings.train),
        splits,
        compute,
        what="distil (classes)",
        loss=make_loss(settings.loss),
        identity={"loss": settings.loss},
        teacher=frozen_teacher(model, teacher.params, teacher.state),
        teacher_model=teacher,
    )


def fitted_encoder(encoder: EncoderConfig, splits: Splits) -> EncoderConfig:
    """The encoder with what the data say: no more token ids than the tokenizer has, recordings at their own rate."""
    if splits.tokenizer is not None and encoder.get("vocabulary") is not None:
        return dataclasses.replace(encoder, vocabulary=min(encoder.get("vocabulary"), splits.tokenizer.size))
    if encoder.get("rate") is not None and splits.train.inputs.ndim == 2:
        return dataclasses.replace(encoder, rate=splits.config.audio.rate)
    return encoder


def _on_episodes(settings: DistilSettings, splits: Splits, teacher: Model, compute: Compute) -> Model:
    if teacher.spec.kind != "learner":
        raise ValueError("few-shot distillation needs a teacher that adapts; this one classifies fixed classes")
    pool, way, train = splits.train, settings.episode.way, settings.train
    if teacher.fixed_way and teacher.spec.way != way:
        raise ValueError(
            f"the teacher adapts to {teacher.spec.way} classes, the episode has {way}; "
            f"give --distill.episode.way {teacher.spec.way}"
        )
    student = make_learner(settings.learner, make_encoder(settings.student, dtype=compute.dtype), way=way)
    spec = training_episode(splits, settings.episode, student)
    if settings.epochs:
        images = train.batch_size * spec.way * (spec.shot + spec.query)
        epochs = with_epochs(dataclasses.replace(train, batch_size=images), settings.epochs, pool.label.shape[0])
        train = dataclasses.replace(train, steps=epochs.steps)
    card = ModelSpec(
        "learner", settings.student, settings.learner, teacher.spec.shape, way=way, tokenizer=tokenizer_digest(splits)
    )
    identity = identity_of(compute, splits, distil=settings, mode="few-shot")

    def train_student() -> Model:
        feed = episode_feed(pool, spec, train.batch_size)
        write_card(compute.folder, card)
        loss = make_loss(settings.loss)
        fitted = fit(
            distil_few_shot(student, teacher.learner(way), teacher.params, teacher.learner_state, loss),
            augmented_feed(feed, make_augment(settings.augment)) if has_images(splits) else feed,
            optimiser=settings.optimiser,
            config=train,
            seed=compute.seed,
            folder=compute.folder,
            validate=validation(card, splits, compute, settings.validation_episodes, student=True),
            select="val_accuracy",
            description="distil (few-shot)",
            settings=identity,
            devices=compute.training_devices(train),
        )
        return Model(card, fitted.params["student"], fitted.state["student"])

    return finished_or_trained(compute, "distil", identity, splits, train_student, teacher=teacher)


def _by_features(settings: DistilSettings, splits: Splits, teacher: Model, compute: Compute) -> Model:
    if not has_images(splits) or settings.augment == "none":
        raise ValueError(
            "mode features has the student see views of images; give images, and --distill.augment, such as glyph"
        )
    identity = identity_of(compute, splits, distil=settings, mode="features")
    stage_one = PretrainSettings(
        augment=settings.augment, epochs=settings.epochs, optimiser=settings.optimiser, train=settings.train
    )

    def train() -> Model:
        targets = unit_rows(compute_features(averaged_features(teacher, settings.views), splits.train.inputs))

        def feature_distillation(encoder: Any, *, augment: Any, axis_name: str, total_steps: int) -> Objective:
            del total_steps
            loss, known = feature_regression(axis_name=axis_name), targets_by_index(targets)
            return as_objective(
                encoder, feature_loss(encoder, loss, teacher=known, augment=augment, axis_name=axis_name)
            )

        trained, _ = train_objective(stage_one, splits, compute, encoder=settings.student, make=feature_distillation)
        variables = encoder_variables(trained.params, trained.state)
        return features_model(features_spec(settings.student, splits), variables, splits, stage_one.whiten)

    return finished_or_trained(compute, "distil (features)", identity, splits, train, teacher=teacher)
