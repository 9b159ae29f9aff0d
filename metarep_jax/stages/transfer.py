"""Fixed classes: a head on frozen features, fine-tuning, or supervised training from scratch, the plain baseline."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from metarep_jax.data import Splits, batch_feed, make_augment, pool_of_arrays
from metarep_jax.distill import classifier, cross_entropy, train_classifier
from metarep_jax.encoders import EncoderConfig, check_encoder_variables, make_encoder
from metarep_jax.evaluate import Interval, interval, split_examples
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model, ModelSpec
from metarep_jax.stages.checkpoints import write_card
from metarep_jax.stages.checks import check_encoder_takes, check_rows, check_start
from metarep_jax.stages.compute import LABELLED_SPLIT, Compute, finished_or_trained, identity_of
from metarep_jax.stages.features import fitted_encoder, tokenizer_digest
from metarep_jax.stages.pretrain import has_images, with_epochs
from metarep_jax.train import AXIS, FitConfig, Inputs, OptimiserConfig, fit
from metarep_jax.typed_settings import Settings
from metarep_jax.types import Pool, Term

TransferMode = Literal["linear-head", "fine-tune", "supervised"]
PREDICTED = 256  # rows at once


@dataclasses.dataclass(frozen=True)
class ClassSettings(Settings):
    """A classifier of fixed classes and its training."""

    encoder: EncoderConfig = EncoderConfig()
    """supervised: which encoder. The other modes take that of the model they start from."""
    augment: str = "none"
    """Augmentation in training: a preset of metarep_jax.data.images.augment."""
    epochs: int | None = None
    """Passes over the training examples, in place of the number of steps."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-3, schedule="cosine")
    train: FitConfig = FitConfig(steps=2000, batch_size=64)


def transfer(
    settings: ClassSettings,
    splits: Splits,
    compute: Compute,
    *,
    start: Model | None = None,
    mode: TransferMode = "supervised",
) -> Model:
    """A classifier of the training classes.

    - "linear-head": a linear head on the frozen encoder of ``start``.
    - "fine-tune": a linear head and the encoder of ``start``, both trained.
    - "supervised": the same from random weights, the baseline with which all else is compared.

    Args:
      settings: the training.
      splits: of fixed classes; of a split by classes, its training classes, a quarter of each one's examples held out.
      compute: the folder that is written, and the seed.
      start: a model, for all modes but supervised.
      mode: see above.

    Raises:
      ValueError: before anything is trained, for a mode without its starting model, or with one it does not use.
    """
    if mode not in get_args(TransferMode):
        raise ValueError(f"unknown mode {mode!r}; there are: {', '.join(get_args(TransferMode))}")
    if (start is None) != (mode == "supervised"):
        raise ValueError(
            f"mode {mode} {'needs a model to start from' if start is None else 'starts from random weights'}; "
            f"{'give' if start is None else 'leave out'} --start"
        )
    if start is not None:
        check_start(start, splits)
        settings = dataclasses.replace(settings, encoder=start.spec.encoder)
    return train_on_classes(
        settings,
        splits,
        compute,
        what=mode,
        loss=cross_entropy(axis_name=AXIS),
        identity={"mode": mode},
        flags="transfer",
        start=start,
        frozen=mode == "linear-head",
    )


def train_on_classes(
    settings: ClassSettings,
    splits: Splits,
    compute: Compute,
    *,
    what: str,
    loss: Term,
    identity: dict[str, Any],
    flags: str,
    encoder_flag: str = "--encoder",
    start: Model | None = None,
    frozen: bool = False,
    teacher: Callable[..., Any] | None = None,
    teacher_model: Model | None = None,
) -> Model:
    """The classifier that minimises ``loss`` on the training examples of fixed classes; see ``transfer``.

    ``flags`` is what the stage's flags begin with, ``encoder_flag`` the one that chooses the encoder, for messages.
    """
    check_encoder_takes(settings.encoder, splits, encoder_flag)
    check_classes(splits)
    if settings.augment != "none" and not has_images(splits):
        raise ValueError(f"views are for images, and {splits.name} has none; leave --{flags}.augment out")
    seen, _ = class_pools(splits, compute)
    names = splits.class_names["train"]
    fitted = fitted_encoder(settings.encoder, splits)
    encoder = make_encoder(fitted, axis_name=AXIS, dtype=compute.dtype)
    variables = start.encoder_params if start else None
    if variables is not None:
        check_encoder_variables(encoder, variables, seen.inputs[:2])
    student = classifier(encoder, len(names), frozen=frozen)
    train = with_epochs(settings.train, settings.epochs, seen.label.shape[0])
    shape = tuple(seen.inputs.shape[1:])
    digest = tokenizer_digest(splits)
    card = ModelSpec("classifier", fitted, LearnerConfig(), shape, class_names=names, tokenizer=digest)
    identity = identity_of(compute, splits, classes=settings, what=what, **identity)

    def train_student(inputs: Inputs) -> Model:
        check_rows(seen.label.shape[0], train.batch_size, f"--{flags}.train.batch-size")
        write_card(compute.folder, card)
        augment = make_augment(settings.augment) if has_images(splits) else None
        trained = fit(
            train_classifier(
                student,
                loss,
                teacher=teacher,
                augment=augment,
                encoder_params=variables,
                size=seen.label.shape[0],
                axis_name=AXIS,
            ),
            batch_feed(seen, train.batch_size),
            optimiser=settings.optimiser,
            config=train,
            seed=compute.seed,
            folder=compute.folder,
            description=what,
            settings=identity,
            inputs=inputs,
            devices=compute.training_devices(train),
        )
        return Model(card, trained.params["student"], trained.state["student"])

    return finished_or_trained(
        compute, what, identity, splits, train_student, flags=flags, start=start, teacher=teacher_model
    )


def check_classes(splits: Splits) -> None:
    """Raises ValueError for data of which no classifier can be trained, or none tested."""
    classes = splits.train.count.shape[0]
    if not splits.labelled or classes < 2:
        there = f"{classes} class" if splits.labelled else "examples without classes"
        raise ValueError(f"a classifier needs 2 training classes or more, and {splits.name} has {there}")
    if splits.fixed_classes and not splits.test.label.shape[0]:
        raise ValueError(
            f"{splits.name} holds no test examples of its classes; give a part for testing, or --data.protocol "
            "share-of-each-class (arrays: fixed_classes=True) to hold out a share of each class"
        )
    if not splits.fixed_classes and int(np.asarray(splits.train.count).min()) < 2:
        name = splits.class_names["train"][int(np.asarray(splits.train.count).argmin())]
        raise ValueError(
            f"class {name!r} has one example, and a quarter of each class is held out for testing; add examples, "
            "remove the class, or give data with a part for testing"
        )


def class_pools(splits: Splits, compute: Compute) -> tuple[Pool, Pool]:
    """The training and the test examples of the training classes: the data's own parts where their classes are fixed,
    else a quarter of each class's examples held out by the seed."""
    if splits.fixed_classes:
        return splits.train, splits.test
    pool = splits.train
    train_rows, test_rows = split_examples(pool, compute.key(LABELLED_SPLIT))
    inputs, label = np.asarray(pool.inputs), np.asarray(pool.label)
    train, test = (
        pool_of_arrays(inputs[rows], label[rows]) for rows in (np.asarray(train_rows), np.asarray(test_rows))
    )
    return train, test


def class_accuracy(model: Model, splits: Splits, compute: Compute) -> Interval:
    """Accuracy in % of a classifier on the test examples of the training classes."""
    names = np.asarray(splits.class_names["train"])
    _, test = class_pools(splits, compute)
    parts = np.array_split(np.arange(test.label.shape[0]), test.label.shape[0] // PREDICTED + 1)
    labels = [model.predict(jnp.asarray(test.inputs[rows])).label for rows in parts if len(rows)]
    return interval(100.0 * (np.concatenate(labels) == names[np.asarray(test.label)]))
