"""Stage 2: meta-learn, from scratch or from pretrained features; on the training classes, or without labels."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax

from metarep_jax.data import Splits, augmented_feed, check_episode_spec, episode_feed, make_augment, usable_columns
from metarep_jax.data.defaults import default_augment
from metarep_jax.data.tasks.pseudo_tasks import TaskConfig, augmentation_tasks, cluster_tasks, make_partitions
from metarep_jax.encoders import EncoderConfig, check_encoder_variables, make_encoder
from metarep_jax.encoders.features import compute_features
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.stages.checkpoints import write_card
from metarep_jax.stages.checks import check_encoder_takes, check_new_classes, check_start, fit_default_episode
from metarep_jax.stages.compute import PARTITIONS, Compute, finished_or_trained, identity_of
from metarep_jax.stages.evaluate import few_shot_columns
from metarep_jax.stages.features import fitted_encoder, tokenizer_digest
from metarep_jax.stages.pretrain import has_images
from metarep_jax.train import FitConfig, Inputs, OptimiserConfig, fit, meta_learning
from metarep_jax.typed_settings import Settings
from metarep_jax.types import EpisodeSpec, Feed, MetaLearner, Pool, Rotations, episode_of

log = logging.getLogger(__name__)
Embed = Callable[[Any], Any]  # inputs [n, ...] -> features [n, dim]


@dataclasses.dataclass(frozen=True)
class MetatrainSettings(Settings):
    """A meta-learner and its training, whose batch size counts tasks."""

    learner: LearnerConfig = LearnerConfig()
    episode: EpisodeSpec = EpisodeSpec(way=5, shot=1, query=5)
    """The training episode. Rotations "none" here means those of the protocol. With few classes the default shrinks,
    which is said."""
    tasks: TaskConfig = TaskConfig()
    augment: str = "none"
    """Augmentation of support and query images in training: a preset of metarep_jax.data.images.augment."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-3)
    train: FitConfig = FitConfig(steps=2000, batch_size=32, validate_every=500)
    validation_episodes: int = 200
    """Episodes on validation classes, by which the best checkpoint is chosen."""


def metatrain(
    settings: MetatrainSettings,
    splits: Splits,
    compute: Compute,
    *,
    start: Model | None = None,
    encoder: EncoderConfig | None = None,
    embed: Embed | None = None,
    features: Model | None = None,
    validate_on: EpisodeSpec | None = None,
    what: str = "meta-learn",
) -> Model:
    """The meta-trained model: of the best checkpoint on the validation classes; without labels, of the last.

    Args:
      settings: the learner, its training episodes and its training.
      splits: the data.
      compute: the folder that is written, and the seed.
      start: a model whose encoder to start from; default: ``encoder`` from random weights.
      encoder: which one, from scratch; default: conv4.
      embed: the features whose clusters are classes, where tasks come from clusters; default: those of ``features``. A
        folder does not know a function: give ``features`` or ``start`` too, for another one to be noticed there.
      features: a model; default: ``start``.
      validate_on: the episodes on validation classes by which the best checkpoint is chosen; default: 1-shot ones.
      what: names the stage where it shows its progress.

    Raises:
      ValueError: before anything is trained, for settings that do not fit each other, the data or the folder.
    """
    same = None if encoder is None else (encoder, fitted_encoder(encoder, splits))
    if start is not None and same is not None and start.spec.encoder not in same:
        raise ValueError(f"the encoder is that of start, {start.spec.encoder}, not {encoder}; give one of them")
    config = start.spec.encoder if start else encoder or EncoderConfig()
    variables = start.encoder_params if start else None
    identity = identity_of(compute, splits, meta=settings, encoder=config, validate_on=validate_on)
    source = features or start
    if embed is None and source is not None:
        embed = source.embed
    if start is not None:
        check_start(start, splits)
    fitted, notes = with_fitting_episode(settings, splits, config)

    def train(inputs: Inputs) -> Model:
        for note in notes:
            log.warning("%s: %s", what, note)
        return _trained(fitted, splits, compute, config, variables, embed, validate_on, what, identity, inputs)

    return finished_or_trained(compute, what, identity, splits, train, flags="meta", start=start, features=features)


def with_fitting_episode(
    settings: MetatrainSettings, splits: Splits, encoder: EncoderConfig
) -> tuple[MetatrainSettings, list[str]]:
    """The settings with a training episode that the classes can serve, and sentences on how the default one shrank.

    Raises:
      ValueError: for tasks of classes on data without new test classes, without classes, or with one.
    """
    check_encoder_takes(encoder, splits, "--encoder")
    if settings.tasks.source != "labels":
        return settings, []
    check_new_classes(splits, "meta-learning")
    module = make_encoder(encoder, adapted=adapts_encoder(settings.learner))
    learner = make_learner(settings.learner, module, way=settings.episode.way)
    spec = dataclasses.replace(settings.episode, rotations=protocol_rotations(splits, settings.episode))
    head = has_head(learner, splits.train, learner.episode_spec(spec))
    episode, notes = fit_default_episode(spec, MetatrainSettings().episode, splits, head=head)
    return dataclasses.replace(settings, episode=episode), notes


def check_metatrain(
    settings: MetatrainSettings, splits: Splits, compute: Compute, encoder: EncoderConfig, flags: str = "meta"
) -> int | None:
    """The way of a learner with a head for it alone, once the settings were found to fit each other and the data.

    Raises:
      ValueError: as ``metatrain`` would, for settings that do not fit each other, the data or the devices; there the
        stage's flags begin with ``flags``.
    """
    settings, _ = with_fitting_episode(settings, splits, encoder)
    module = make_encoder(encoder, adapted=adapts_encoder(settings.learner))
    learner = make_learner(settings.learner, module, way=settings.episode.way)
    labelled = settings.tasks.source == "labels"
    spec = training_episode(splits, settings.episode, learner, labelled=labelled, flags=flags)
    check_views(settings, splits)
    compute.check_training(settings.train, settings.optimiser)
    return spec.way if has_head(learner, splits.train, spec) else None


def check_views(settings: MetatrainSettings, splits: Splits) -> None:
    """Raises ValueError for views of anything but images, and for tasks from augmentations without views."""
    if settings.augment != "none" and not has_images(splits):
        raise ValueError(f"meta.augment is for images, and {splits.config.name} has none; leave --meta.augment out")
    if settings.tasks.source == "augmentations" and settings.augment == "none":
        suits = default_augment(splits)
        raise ValueError(f"tasks from augmentations need views of images; set --meta.augment, such as {suits}")


def _trained(
    settings: MetatrainSettings,
    splits: Splits,
    compute: Compute,
    config: EncoderConfig,
    variables: Any,
    embed: Embed | None,
    validate_on: EpisodeSpec | None,
    what: str,
    identity: dict[str, Any],
    inputs: Inputs,
) -> Model:
    pool = splits.train
    encoder = make_encoder(config, dtype=compute.dtype, adapted=adapts_encoder(settings.learner))
    if variables is not None:
        check_encoder_variables(encoder, variables, pool.inputs[:2])
    learner = make_learner(settings.learner, encoder, way=settings.episode.way)
    spec = training_episode(splits, settings.episode, learner, labelled=settings.tasks.source == "labels")
    shape = tuple(pool.inputs.shape[1:])
    card = ModelSpec("learner", config, settings.learner, shape, way=spec.way, tokenizer=tokenizer_digest(splits))
    write_card(compute.folder, card)
    ways = (card.way,) if has_head(learner, pool, spec) else (card.way, 5)
    fitted = fit(
        meta_learning(learner, spec, encoder_params=variables),
        training_tasks(settings, splits, compute, spec, embed),
        optimiser=settings.optimiser,
        config=settings.train,
        seed=compute.seed,
        folder=compute.folder,
        validate=validation(card, splits, compute, settings.validation_episodes, validate_on, ways, what=what),
        select="val_accuracy" if settings.tasks.source == "labels" else None,  # else labels would choose the weights
        description=f"{what} ({settings.learner.name})",
        settings=identity,
        inputs=inputs,
        devices=compute.training_devices(settings.train),
    )
    return Model(card, fitted.params, fitted.state)


def training_episode(
    splits: Splits,
    episode: EpisodeSpec,
    learner: MetaLearner | None = None,
    labelled: bool = True,
    flags: str = "meta",
) -> EpisodeSpec:
    """The training episode with the protocol's rotations, as the learner wants it, checked against the data.

    ``flags`` is what the stage's flags begin with, for messages.
    """
    episode = dataclasses.replace(episode, rotations=protocol_rotations(splits, episode))
    episode = episode if learner is None else learner.episode_spec(episode)
    if labelled:
        shape = [f"--{flags}.episode.{size}" for size in ("way", "shot", "query")]
        check_episode_spec(splits.train, episode, splits.class_names["train"], "train", shape)
    return episode


def protocol_rotations(splits: Splits, episode: EpisodeSpec) -> Rotations:
    """The episode's rotations; of one without, those of the protocol."""
    return splits.protocol.train_rotations if episode.rotations == "none" else episode.rotations


def training_tasks(
    settings: MetatrainSettings, splits: Splits, compute: Compute, spec: EpisodeSpec, embed: Embed | None
) -> Feed:
    """Batches of training episodes, of classes or without labels; ``embed`` gives the features to cluster.

    Raises:
      ValueError: for views of anything but images, tasks from augmentations without views, and tasks from clusters
        without features.
    """
    check_views(settings, splits)
    pool, tasks, augment = splits.train, settings.train.batch_size, make_augment(settings.augment)
    if settings.tasks.source == "augmentations":
        return augmentation_tasks(pool, spec, tasks, augment)
    if settings.tasks.source == "clusters":
        if embed is None:
            raise ValueError("tasks from clusters need features; give --start or --features, a finished run's folder")
        features = compute_features(embed, pool.inputs)
        partitions = make_partitions(compute.key(PARTITIONS), pool, features, spec, settings.tasks)
        feed = cluster_tasks(partitions, spec, tasks)
    else:
        feed = episode_feed(pool, spec, tasks)
    return augmented_feed(feed, augment) if has_images(splits) else feed


def has_head(learner: MetaLearner, pool: Pool, spec: EpisodeSpec) -> bool:
    """Whether the learner has a head of its own, for the classes of its training's way alone; nothing is computed."""
    params, _ = jax.eval_shape(learner.init, jax.random.key(0), episode_of(spec, pool.inputs))
    return "head" in params


def needs_way(card: ModelSpec, pool: Pool, spec: EpisodeSpec) -> bool:
    """Whether the card's learner can be judged on episodes of its training's way alone."""
    encoder = make_encoder(card.encoder, adapted=adapts_encoder(card.learner))
    return has_head(make_learner(card.learner, encoder, way=spec.way), pool, spec)


def validation(
    card: ModelSpec,
    splits: Splits,
    compute: Compute,
    episodes: int,
    column: EpisodeSpec | None = None,
    ways: tuple[int, ...] | None = None,
    *,
    student: bool = False,
    what: str = "training",
) -> Callable[[Any, Any, int], dict[str, float]] | None:
    """A callback for ``fit``: accuracy on episodes of the validation classes; None where there are too few.

    Episodes are those of ``column``, by default 1-shot ones of the first of ``ways`` that there are classes for, the
    training's or else 5; of fewer ways where there are fewer classes and the learner has no head. ``student``: the
    parameters that are trained have the student's among them. ``what`` names the training, for the sentence that says
    that there is nothing to validate on.

    Raises:
      ValueError: for a ``column`` that the validation classes cannot serve.
    """
    pool, protocol, notes = splits.val, splits.protocol, ["there are no validation classes"]
    columns = []
    if column and pool.count.size:
        check_episode_spec(pool, column, splits.class_names["val"], "val")
        columns = [column]
    elif pool.count.size:
        wanted = ways or (card.way, 5)
        usable, notes = usable_columns(
            pool,
            wanted,
            (1,),
            protocol.query,
            protocol.test_rotations,
            class_names=splits.class_names["val"],
            part="val",
        )
        columns = [spec for spec in usable if spec.way in wanted]
        if usable and not columns and not needs_way(card, pool, usable[0]):
            columns = usable
            log.info("%s: validation: %s", what, "; ".join(notes))
    if not columns:
        log.info("%s: nothing to choose the best checkpoint by, the last is kept: %s", what, "; ".join(notes))
        return None

    def validate(params: Any, state: Any, step: int) -> dict[str, float]:
        del step
        model = Model(card, params["student"], state["student"]) if student else Model(card, params, state)
        accuracy = few_shot_columns(model, splits, columns[:1], compute, part="val", episodes=episodes)
        return {"val_accuracy": next(iter(accuracy.values())).mean}

    return validate
