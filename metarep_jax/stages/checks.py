"""What would spoil or end a training, said before its first step: what was given, what is possible, which flag."""

import contextlib
import dataclasses
from collections.abc import Iterator

from metarep_jax.data import Splits, fitting_episode
from metarep_jax.encoders import EncoderConfig, check_encoder_variables, check_inputs, make_encoder
from metarep_jax.model import Model
from metarep_jax.types import EpisodeSpec


@contextlib.contextmanager
def flags_below(prefix: str) -> Iterator[None]:
    """Writes the flags in messages of a training, such as ``--….train.steps``, as they are typed for this stage."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        if "--…." not in message:
            raise
        raise ValueError(message.replace("--….", f"--{prefix}.")) from error


def check_rows(rows: int, batch: int, flag: str) -> None:
    """Raises ValueError for a training part of fewer rows than a batch, whose ``flag`` it names."""
    if rows < batch:
        raise ValueError(
            f"the training part has {rows} examples, fewer than a batch of {batch}; set {flag} {rows} or less, or "
            "train on more data"
        )


def check_encoder_takes(encoder: EncoderConfig, splits: Splits, flag: str) -> None:
    """Raises ValueError when the encoder that ``flag`` chooses does not take the data; says which encoders do."""
    try:
        check_inputs(encoder, splits.train.inputs, 0 if splits.tokenizer is None else splits.tokenizer.size)
    except ValueError as error:
        raise ValueError(str(error).replace("--encoder", flag)) from error


def check_model_takes(model: Model, splits: Splits, flag: str) -> None:
    """Raises ValueError when the model of ``flag`` takes inputs of another shape than the data's; says what to set."""
    shape, own = tuple(splits.train.inputs.shape[1:]), tuple(model.spec.shape)
    if shape == own:
        return
    message = f"the model of {flag} takes inputs of shape {own}, {splits.name} gives {shape}"
    if len(shape) != 3 or len(own) != 3:
        raise ValueError(f"{message}; give --data of the same kind")
    change = [f"--data.channels {own[-1]}"] if shape[-1] != own[-1] else []
    change += [f"--data.image-size {own[0]}"] if shape[:2] != own[:2] else []
    raise ValueError(f"{message}; set {' and '.join(change)} to match")


def check_start(start: Model, splits: Splits) -> None:
    """Raises ValueError when the encoder of --start has no weights for inputs of the data's shape; says what to set."""
    try:
        check_encoder_variables(make_encoder(start.spec.encoder), start.encoder_params, splits.train.inputs[:2])
    except ValueError:
        check_model_takes(start, splits, "--start")
        raise


def check_new_classes(splits: Splits, what: str) -> None:
    """Raises ValueError for few-shot learning on fixed classes, of which testing would hold none that are new."""
    if not splits.labelled:
        raise ValueError(
            f"{what} needs classes to make tasks of, and {splits.name} has examples without classes; give data with "
            "classes, or let tasks come from --tasks augmentations or --tasks clusters"
        )
    if splits.fixed_classes and splits.test.label.shape[0]:
        raise ValueError(
            f"{what} needs test classes that training does not see, and {splits.name} has {splits.describe()}; give "
            "--data.protocol random-classes to split the classes (arrays: fixed_classes=False), or train a classifier "
            "of them by python -m experiments.transfer"
        )
    if (classes := splits.train.count.shape[0]) < 2:
        raise ValueError(
            f"{what} needs 2 training classes or more to tell apart, and there is {classes} in training; train on "
            "more classes, or train a classifier of all of them by python -m experiments.transfer --data.protocol "
            "share-of-each-class"
        )


def fit_default_episode(
    episode: EpisodeSpec, default: EpisodeSpec, splits: Splits, *, head: bool
) -> tuple[EpisodeSpec, list[str]]:
    """The training episode with way and queries shrunk to what few classes can serve, and a sentence on each.

    Only the ``default`` episode is: one that was asked for stays as it is, for ``check_episode_spec`` to refuse.

    Args:
      episode: with the protocol's rotations.
      default: of the stage's settings.
      splits: whose training classes serve the episodes.
      head: whether the learner has a head for the training's way alone, so that test classes count too.
    """
    if dataclasses.replace(episode, rotations=default.rotations) != default:
        return episode, []
    episode, notes = fitting_episode(splits.train, episode, class_names=splits.class_names["train"])
    testing = splits.test.count.shape[0] * (4 if splits.protocol.test_rotations == "classes" else 1)
    if head and 2 <= testing < episode.way:
        notes.append(
            f"training episodes are of {testing} ways, not {episode.way}: test has {testing} classes, and the learner "
            "has a head for the way that it is trained with alone"
        )
        episode = dataclasses.replace(episode, way=testing)
    return episode, notes
