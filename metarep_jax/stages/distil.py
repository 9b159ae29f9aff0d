"""Stage 3: hand what a model knows to a smaller one: on episodes, on fixed classes, or feature by feature."""

import dataclasses
import logging
from typing import Any, Literal, NamedTuple, get_args

from metarep_jax.data import Splits, augmented_feed, batch_feed, episode_feed, make_augment
from metarep_jax.distill import (
    LossConfig,
    classifier,
    distil_features,
    distil_few_shot,
    encoder_alone,
    frozen_teacher,
    loss_of,
    make_loss,
    targets_by_index,
)
from metarep_jax.encoders import EncoderConfig, encoder_variables, make_encoder
from metarep_jax.encoders.features import compute_features, unit_rows
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.pretrain import collapse_warning
from metarep_jax.stages.checkpoints import write_card
from metarep_jax.stages.checks import (
    check_encoder_takes,
    check_model_takes,
    check_new_classes,
    check_rows,
    fit_default_episode,
)
from metarep_jax.stages.compute import Compute, finished_or_trained, identity_of
from metarep_jax.stages.evaluate import averaged_features
from metarep_jax.stages.features import features_model, features_spec, fitted_encoder, tokenizer_digest
from metarep_jax.stages.metatrain import has_head, protocol_rotations, training_episode, validation
from metarep_jax.stages.pretrain import has_images, with_epochs
from metarep_jax.stages.transfer import ClassSettings, train_on_classes
from metarep_jax.train import AXIS, FitConfig, Inputs, OptimiserConfig, fit
from metarep_jax.typed_settings import Settings
from metarep_jax.types import EpisodeSpec, MetaLearner

log = logging.getLogger(__name__)
DistilMode = Literal["few-shot", "classes", "features"]


@dataclasses.dataclass(frozen=True)
class DistilSettings(Settings):
    """A student, its loss, and its training."""

    student: EncoderConfig = EncoderConfig(width=18)
    """The student's encoder."""
    learner: LearnerConfig = LearnerConfig("prototypical")
    """The student's learner (few-shot)."""
    loss: LossConfig = loss_of({"cross_entropy": 1.0, "soft_targets": 1.0})
    """What the student minimises (few-shot, classes)."""
    feature_loss: LossConfig = loss_of({"feature_regression": 1.0})
    """What the student minimises (features)."""
    episode: EpisodeSpec = EpisodeSpec(way=20, shot=1, query=5)
    """The training episode (few-shot). Rotations "none" here means those of the protocol. The default follows a teacher
    with a head for its own way, and shrinks where there are few classes, which is said."""
    augment: str = "none"
    """Augmentation in training: a preset of metarep_jax.data.images.augment."""
    views: int | None = None
    """features: of each image, over which the teacher's features are averaged, once; default: the teacher sees the
    student's view anew in every step."""
    whiten: float = 0.25
    """features: power of the whitening of the student's finished features."""
    epochs: int | None = None
    """Passes over the training examples, in place of the number of steps."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-3, schedule="cosine")
    train: FitConfig = FitConfig(steps=2000, batch_size=2, validate_every=500)
    """few-shot: the batch size counts tasks."""
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
    if mode not in get_args(DistilMode):
        raise ValueError(f"unknown mode {mode!r}; there are: {', '.join(get_args(DistilMode))}")
    check_model_takes(teacher, splits, "--teacher")
    check_encoder_takes(settings.student, splits, "--student")
    if mode == "few-shot":
        return _on_episodes(settings, splits, teacher, compute)
    if mode == "features":
        return _by_features(settings, splits, teacher, compute)
    names = splits.class_names["train"]
    if teacher.spec.kind != "classifier" or teacher.spec.class_names != names:
        raise ValueError(
            f"--mode classes needs a teacher that classifies these training classes, and that of --teacher "
            f"{what_it_is(teacher)}; train one by python -m experiments.transfer --mode supervised, or fine-tune"
        )
    encoder = make_encoder(teacher.spec.encoder, dtype=compute.dtype)
    model = classifier(encoder, len(names), frozen="frozen" in teacher.state)
    return train_on_classes(
        ClassSettings(settings.student, settings.augment, settings.epochs, settings.optimiser, settings.train),
        splits,
        compute,
        what="distil (classes)",
        flags="distill",
        encoder_flag="--student",
        loss=make_loss(settings.loss, axis_name=AXIS),
        identity={"loss": settings.loss},
        teacher=frozen_teacher(model, teacher.params, teacher.state),
        teacher_model=teacher,
    )


def what_it_is(model: Model) -> str:
    """What a model does, for messages."""
    if model.spec.kind == "classifier":
        return f"classifies {len(model.spec.class_names)} fixed classes, the first is {model.spec.class_names[0]!r}"
    return f"is a {model.spec.learner.name} learner"


def _on_episodes(settings: DistilSettings, splits: Splits, teacher: Model, compute: Compute) -> Model:
    if teacher.spec.kind != "learner":
        raise ValueError(
            f"--mode few-shot needs a teacher that adapts to new classes, and that of --teacher {what_it_is(teacher)}; "
            "give --mode classes, or the run of a learner"
        )
    plan = plan_few_shot(settings, splits, compute, teacher.head_way)
    card = ModelSpec(
        "learner",
        settings.student,
        settings.learner,
        teacher.spec.shape,
        way=plan.way,
        tokenizer=tokenizer_digest(splits),
    )
    identity = identity_of(compute, splits, distil=settings, mode="few-shot")

    def train_student(inputs: Inputs) -> Model:
        for note in plan.notes:
            log.warning("distil: %s", note)
        feed = episode_feed(splits.train, plan.episode, plan.train.batch_size)
        write_card(compute.folder, card)
        loss, guide = make_loss(settings.loss), teacher.learner(plan.way, compute.dtype)
        fitted = fit(
            distil_few_shot(plan.student, guide, teacher.params, teacher.learner_state, loss),
            augmented_feed(feed, make_augment(settings.augment)) if has_images(splits) else feed,
            optimiser=settings.optimiser,
            config=plan.train,
            seed=compute.seed,
            folder=compute.folder,
            validate=validation(
                card, splits, compute, settings.validation_episodes, ways=plan.ways, student=True, what="distil"
            ),
            select="val_accuracy",
            description="distil (few-shot)",
            settings=identity,
            inputs=inputs,
            devices=compute.training_devices(plan.train),
        )
        return Model(card, fitted.params["student"], fitted.state["student"])

    return finished_or_trained(compute, "distil", identity, splits, train_student, flags="distill", teacher=teacher)


class FewShotPlan(NamedTuple):
    """What few-shot distillation trains, once its settings were found to fit each other, the data and the teacher."""

    student: MetaLearner
    episode: EpisodeSpec
    way: int
    ways: tuple[int, ...]  # that it may be validated on
    train: FitConfig
    notes: list[str]


def plan_few_shot(settings: DistilSettings, splits: Splits, compute: Compute, teacher_way: int | None) -> FewShotPlan:
    """The plan of few-shot distillation; ``teacher_way`` is that of a teacher with a head of its own, None any.

    Raises:
      ValueError: for settings that do not fit each other, the data, the devices or the teacher.
    """
    check_new_classes(splits, "few-shot distillation")
    settings = dataclasses.replace(settings, student=fitted_encoder(settings.student, splits))
    check_encoder_takes(settings.student, splits, "--student")
    episode, notes = with_fitting_episode(settings, splits, teacher_way)
    way, train = episode.way, settings.train
    if teacher_way is not None and teacher_way != way:
        raise ValueError(
            f"the teacher adapts to {teacher_way} classes, the episode has {way}; "
            f"give --distill.episode.way {teacher_way}"
        )
    student = make_learner(settings.learner, make_encoder(settings.student, dtype=compute.dtype), way=way)
    spec = training_episode(splits, episode, student, flags="distill")
    if settings.epochs:
        images = train.batch_size * spec.way * (spec.shot + spec.query)
        epochs = with_epochs(
            dataclasses.replace(train, batch_size=images), settings.epochs, splits.train.label.shape[0]
        )
        train = dataclasses.replace(train, steps=epochs.steps)
    compute.check_training(train, settings.optimiser)
    ways = (way,) if has_head(student, splits.train, spec) else (way, 5)
    return FewShotPlan(student, spec, way, ways, train, notes)


def with_fitting_episode(
    settings: DistilSettings, splits: Splits, teacher_way: int | None
) -> tuple[EpisodeSpec, list[str]]:
    """The training episode: the default one of the teacher's way where that has a head for it alone, and else as large
    as the classes allow; and sentences on what was changed."""
    default = DistilSettings().episode
    spec = dataclasses.replace(settings.episode, rotations=protocol_rotations(splits, settings.episode))
    if teacher_way is not None and settings.episode == default and teacher_way != default.way:
        followed = f"training episodes are of {teacher_way} ways, not {default.way}: the teacher has a head for those"
        return dataclasses.replace(spec, way=teacher_way), [followed]
    student = make_learner(settings.learner, make_encoder(fitted_encoder(settings.student, splits)), way=spec.way)
    return fit_default_episode(spec, default, splits, head=has_head(student, splits.train, spec))


def _by_features(settings: DistilSettings, splits: Splits, teacher: Model, compute: Compute) -> Model:
    pool, card = splits.train, features_spec(settings.student, splits)
    train = with_epochs(settings.train, settings.epochs, pool.label.shape[0])
    identity = identity_of(compute, splits, distil=settings, mode="features")
    augment = make_augment(settings.augment) if has_images(splits) else None

    def train_student(inputs: Inputs) -> Model:
        check_rows(pool.label.shape[0], train.batch_size, "--distill.train.batch-size")
        write_card(compute.folder, card, settings.whiten)
        encoder = make_encoder(settings.student, axis_name=AXIS, dtype=compute.dtype)
        loss = make_loss(settings.feature_loss, axis_name=AXIS)
        teach = _feature_teacher(teacher, settings.views, splits, compute.dtype)
        fitted = fit(
            distil_features(encoder, loss, teacher=teach, augment=augment, size=pool.label.shape[0], axis_name=AXIS),
            batch_feed(pool, train.batch_size),
            optimiser=settings.optimiser,
            config=train,
            seed=compute.seed,
            folder=compute.folder,
            warn=collapse_warning,
            description="distil (features)",
            settings=identity,
            inputs=inputs,
            devices=compute.training_devices(train),
        )
        variables = encoder_variables(fitted.params["student"], fitted.state["student"])
        return features_model(card, variables, splits, settings.whiten)

    return finished_or_trained(
        compute, "distil (features)", identity, splits, train_student, flags="distill", teacher=teacher
    )


def _feature_teacher(teacher: Model, views: int | None, splits: Splits, dtype: Any) -> Any:
    """The teacher's features of each view as it comes, in ``dtype``, or those of every training image, averaged over
    views of it."""
    if views is not None:
        features = compute_features(averaged_features(teacher, views), splits.train.inputs)
        return targets_by_index(unit_rows(features))
    variables = teacher.encoder_params
    params, state = {"encoder": variables["params"]}, {"encoder": variables["batch_stats"]}
    return frozen_teacher(encoder_alone(make_encoder(teacher.spec.encoder, dtype=dtype)), params, state)
