"""Stage 3: hand a model to a smaller one, or to fixed classes.

    python -m experiments.distill --teacher runs/metatrain-glyphs                     # few-shot: both adapt on episodes
    python -m experiments.distill --teacher runs/pretrain-glyphs --mode features      # frozen encoder, new head
    python -m experiments.distill --teacher runs/pretrain-glyphs --mode fine-tune
    python -m experiments.distill --teacher runs/distill-glyphs-fine --mode classes   # a classifier's logits

``few-shot`` judges on unseen classes; the other modes hold out a quarter of each training class's images.
"""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from experiments.checkpoints import announce
from experiments.cli import parse
from experiments.common import (
    CommonConfig,
    Run,
    finish,
    fitted_encoder,
    loaded,
    run_experiment,
    stage,
    training_settings,
)
from experiments.evaluate import EvaluateSettings, cells_of
from experiments.figures import curves_figure, episode_figure
from experiments.metatrain import training_episode, validation
from experiments.pretrain import with_epochs
from metarep_jax.data import augmented_feed, batch_feed, episode_feed, make_augment, pool_of_arrays
from metarep_jax.distill import (
    LossConfig,
    classifier,
    cross_entropy,
    distil_few_shot,
    frozen_teacher,
    make_loss,
    train_classifier,
)
from metarep_jax.encoders import EncoderConfig, check_encoder_variables, count_parameters, make_encoder
from metarep_jax.evaluate import interval, split_examples
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.train import FitConfig, OptimiserConfig, compute_dtype, fit
from metarep_jax.types import EpisodeSpec, Pool


@dataclasses.dataclass(frozen=True)
class DistillSettings:
    """A student, its loss, and its training."""

    student: EncoderConfig = EncoderConfig(width=18)
    """The student's encoder."""
    learner: LearnerConfig = LearnerConfig(name="prototypical")
    """The student's learner (few-shot)."""
    loss: LossConfig = LossConfig()
    episode: EpisodeSpec = EpisodeSpec(way=20, shot=1, query=5)
    """The training episode (few-shot). Rotations "none" here means those of the protocol."""
    augment: str = "none"
    """Augmentation in training: a preset of metarep_jax.data.augment."""
    epochs: int | None = None
    """Passes over the training images; overrides train.steps."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-3, schedule="cosine")
    train: FitConfig = FitConfig(steps=2000, batch_size=2, validate_every=500)
    validation_episodes: int = 200
    """Episodes on validation classes, by which the best checkpoint is chosen."""


@dataclasses.dataclass(frozen=True)
class DistillConfig(CommonConfig):
    """Flags of experiments.distill. --encoder is not used: the student's encoder is --distill.student."""

    teacher: Path = Path("runs/metatrain-glyphs")
    """Folder of the finished run that teaches (few-shot, classes) or gives its encoder (features, fine-tune)."""
    mode: Literal["few-shot", "classes", "features", "fine-tune"] = "few-shot"
    """What is trained; see above."""
    distill: DistillSettings = DistillSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    shorthands: ClassVar[dict[str, str]] = {"learner": "distill.learner"}


def few_shot_stage(run: Run, settings: DistillSettings, teacher: Model, folder: Path) -> Model:
    """The few-shot student; taken from ``folder`` when an earlier run finished it there."""
    return stage(folder, "distil", lambda: few_shot_student(run, settings, teacher, folder), settings.train)


def few_shot_student(run: Run, settings: DistillSettings, teacher: Model, folder: Path) -> Model:
    """Trains stage 3 on episodes; checkpoints and metrics go to ``folder``."""
    if teacher.spec.kind != "learner":
        raise ValueError("few-shot distillation needs a teacher that adapts; this one classifies fixed classes")
    pool, way = run.splits.train, settings.episode.way
    if teacher.fixed_way and teacher.spec.way != way:
        raise ValueError(f"the teacher adapts to {teacher.spec.way} classes, the episode has {way}; make them equal")
    student_config = fitted_encoder(settings.student, run.splits)
    encoder = make_encoder(student_config, dtype=compute_dtype(run.config.precision))
    student = make_learner(settings.learner, encoder, way=way)
    spec = training_episode(run, settings.episode, student)
    images = settings.train.batch_size * spec.way * (spec.shot + spec.query)
    train = settings.train
    if settings.epochs:
        epochs = with_epochs(dataclasses.replace(train, batch_size=images), settings.epochs, pool.label.shape[0])
        train = dataclasses.replace(train, steps=epochs.steps)
    card = ModelSpec("learner", student_config, settings.learner, teacher.spec.shape, way=way, tokenizer=run.tokenizer)
    feed = episode_feed(pool, spec, train.batch_size)
    announce(folder, card)
    fitted = fit(
        distil_few_shot(student, teacher.learner(way), teacher.params, teacher.learner_state, make_loss(settings.loss)),
        augmented_feed(feed, make_augment(settings.augment)) if run.has_images else feed,
        optimiser=settings.optimiser,
        config=train,
        seed=run.config.seed,
        folder=folder,
        validate=validation(run, card, settings.validation_episodes, student=True),
        select="val_accuracy",
        description="distil (few-shot)",
        settings=training_settings(run.config),
        devices=run.devices_of(train),
    )
    return Model(card, fitted.params["student"], fitted.state["student"])


def fixed_classes_stage(run: Run, config: DistillConfig, given: Model) -> tuple[Model, Any]:
    """A classifier of the training classes, and its accuracy on their held-out images."""
    pool, names = run.splits.train, run.splits.class_names["train"]
    train_rows, test_rows = split_examples(pool, run.key(3))
    seen = pool_of_arrays(np.asarray(pool.inputs[train_rows]), np.asarray(pool.label[train_rows]))

    def train() -> Model:
        return fixed_classes_student(run, config, given, seen)

    model = stage(run.folder, config.mode, train, config.distill.train)
    predicted = np.concatenate(
        [model.predict(pool.inputs[rows]).label for rows in np.array_split(test_rows, len(test_rows) // 256 + 1)]
    )
    return model, interval(100.0 * (predicted == np.asarray(names)[np.asarray(pool.label[test_rows])]))


def fixed_classes_student(run: Run, config: DistillConfig, given: Model, seen: Pool) -> Model:
    """Trains stage 3 on the classes of ``seen``; checkpoints and metrics go to the run's folder."""
    settings, names = config.distill, run.splits.class_names["train"]
    dtype = compute_dtype(config.precision)
    teacher, loss, encoder_params = None, cross_entropy(), None
    if config.mode == "classes":
        if given.spec.kind != "classifier" or given.spec.class_names != names:
            raise ValueError(
                "mode classes needs a teacher that classifies these training classes; train one with --mode fine-tune"
            )
        model = classifier(make_encoder(given.spec.encoder, dtype=dtype), len(names), frozen="frozen" in given.state)
        teacher, loss = frozen_teacher(model, given.params, given.state), make_loss(settings.loss)
        encoder_config = settings.student
    else:
        encoder_config, encoder_params = given.spec.encoder, given.encoder_params
    encoder = make_encoder(encoder_config, dtype=dtype)
    if encoder_params is not None:
        check_encoder_variables(encoder, encoder_params, seen.inputs[:2])
    student = classifier(encoder, len(names), frozen=config.mode == "features")
    train = with_epochs(settings.train, settings.epochs, seen.label.shape[0])
    card = ModelSpec("classifier", encoder_config, LearnerConfig(), tuple(seen.inputs.shape[1:]), class_names=names)
    announce(run.folder, card)
    fitted = fit(
        train_classifier(
            student, loss, teacher=teacher, augment=make_augment(settings.augment), encoder_params=encoder_params
        ),
        batch_feed(seen, train.batch_size),
        optimiser=settings.optimiser,
        config=train,
        seed=config.seed,
        folder=run.folder,
        description=f"distil ({config.mode})",
        settings=training_settings(config),
        devices=run.devices_of(train),
    )
    return Model(card, fitted.params["student"], fitted.state["student"])


def parameter_cells(models: dict[str, Model]) -> dict[str, Any]:
    """The ``parameters`` column: scalars of the encoder and, where there is one, the head."""
    return {
        row: {"parameters": {"mean": count_parameters(model.params), "ci95": None, "n": 1}}
        for row, model in models.items()
    }


def work(run: Run) -> None:
    config = run.config
    given = loaded(run, config.teacher)
    if config.mode == "few-shot":
        model = few_shot_stage(run, config.distill, given, run.folder)
        models = {"teacher": given, "student": model}
        cells = cells_of(run, models, config.evaluate)
        paths = [episode_figure(run, training_episode(run, config.distill.episode))]
    else:
        model, accuracy = fixed_classes_stage(run, config, given)
        models, paths = {config.mode: model}, []
        cells = {config.mode: {f"{len(model.spec.class_names)} classes": accuracy.cell()}}
    for row, more in parameter_cells(models).items():
        cells[row] |= more
    finish(run, cells, figure_paths=[*paths, curves_figure(run, {"distil": run.folder})])


if __name__ == "__main__":
    run_experiment("distill", work, parse(DistillConfig, __doc__))
