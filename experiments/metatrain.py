"""Stage 2: meta-learn, from scratch or from pretrained features; on the training classes, or without labels.

    python -m experiments.metatrain                                             # MAML on glyphs
    python -m experiments.metatrain --learner prototypical --meta.episode.way 20
    python -m experiments.metatrain --start runs/pretrain-glyphs                # from stage 1's encoder
    python -m experiments.metatrain --learner my_module:my_learner              # a learner of your own
    python -m experiments.metatrain --tasks augmentations --meta.augment glyph  # no labels: each image is a class
    python -m experiments.metatrain --tasks clusters --start runs/pretrain-glyphs    # no labels: clusters of features

The best checkpoint on the validation classes is kept and judged on the test classes; without labels, the last.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax

from experiments.checkpoints import announce
from experiments.cli import parse
from experiments.common import (
    CommonConfig,
    Run,
    finish,
    loaded,
    run_experiment,
    stage,
    training_settings,
)
from experiments.evaluate import EvaluateSettings, cells_of, evaluate_model
from experiments.figures import curves_figure, embedding_figure, episode_figure, layers_figure, occlusion_figure
from metarep_jax.data import augmented_feed, check_episode_spec, episode_feed, make_augment
from metarep_jax.data.pseudo_tasks import TaskConfig, TaskSource, augmentation_tasks, cluster_tasks, make_partitions
from metarep_jax.encoders import EncoderConfig, check_encoder_variables, make_encoder
from metarep_jax.encoders.features import compute_features
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.train import FitConfig, OptimiserConfig, compute_dtype, fit, meta_learning
from metarep_jax.types import EpisodeSpec, Feed, MetaLearner, Pool, episode_of

Embed = Callable[[Any], Any]  # inputs [n, ...] -> features [n, dim]


@dataclasses.dataclass(frozen=True)
class MetatrainSettings:
    """A meta-learner and its training. ``train.batch_size`` counts tasks."""

    learner: LearnerConfig = LearnerConfig()
    episode: EpisodeSpec = EpisodeSpec(way=5, shot=1, query=5)
    """The training episode. Rotations "none" here means those of the protocol."""
    tasks: TaskConfig = TaskConfig()
    augment: str = "none"
    """Augmentation of support and query images in training: a preset of metarep_jax.data.augment."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-3)
    train: FitConfig = FitConfig(steps=2000, batch_size=32, validate_every=500)
    validation_episodes: int = 200
    """Episodes on validation classes, by which the best checkpoint is chosen."""


@dataclasses.dataclass(frozen=True)
class MetatrainConfig(CommonConfig):
    """Flags of experiments.metatrain."""

    start: Path | None = None
    """Run folder whose encoder to start from; default: from scratch."""
    features: Path | None = None
    """Run folder whose features are clustered, for tasks from clusters; default: that of start."""
    meta: MetatrainSettings = MetatrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    shorthands: ClassVar[dict[str, str]] = {"learner": "meta.learner", "tasks": "meta.tasks.source"}


def training_episode(run: Run, episode: EpisodeSpec, learner: Any = None, source: TaskSource = "labels") -> EpisodeSpec:
    """The training episode with the protocol's rotations, as the learner wants it, checked against the data."""
    if episode.rotations == "none":
        episode = dataclasses.replace(episode, rotations=run.splits.protocol.train_rotations)
    episode = episode if learner is None else learner.episode_spec(episode)
    if source == "labels":
        check_episode_spec(run.splits.train, episode, run.splits.class_names["train"], "train")
    return episode


def training_tasks(run: Run, settings: MetatrainSettings, spec: EpisodeSpec, embed: Embed | None) -> Feed:
    """Batches of training episodes, of classes or without labels; ``embed`` gives the features to cluster.

    Raises:
      ValueError: for views of anything but images, tasks from augmentations without views, and tasks from clusters
        without features.
    """
    pool, tasks, augment = run.splits.train, settings.train.batch_size, make_augment(settings.augment)
    if settings.augment != "none" and not run.has_images:
        raise ValueError(f"meta.augment is for images, and {run.config.data.name} has none; leave it out")
    if settings.tasks.source == "augmentations":
        if settings.augment == "none":
            raise ValueError("tasks from augmentations need views of images; set meta.augment, such as glyph")
        return augmentation_tasks(pool, spec, tasks, augment)
    if settings.tasks.source == "clusters":
        if embed is None:
            raise ValueError("tasks from clusters need features; give --start or --features, a finished run's folder")
        features = compute_features(embed, pool.inputs)
        feed = cluster_tasks(make_partitions(run.key(10), pool, features, spec, settings.tasks), spec, tasks)
    else:
        feed = episode_feed(pool, spec, tasks)
    return augmented_feed(feed, augment) if run.has_images else feed


def metatrain_stage(
    run: Run,
    settings: MetatrainSettings,
    folder: Path,
    *,
    encoder_config: EncoderConfig,
    encoder_params: Any = None,
    what: str = "meta-learn",
    validate_on: EpisodeSpec | None = None,
    embed: Embed | None = None,
) -> Model:
    """The meta-trained model; taken from ``folder`` when an earlier run finished it there.

    ``validate_on``: the episodes on validation classes by which the best checkpoint is chosen; None: 1-shot ones.
    ``embed``: the features whose clusters are classes, where tasks come from clusters.
    """

    def train() -> Model:
        return metatrained_model(run, settings, folder, encoder_config, encoder_params, what, validate_on, embed)

    return stage(folder, what, train, settings.train)


def metatrained_model(
    run: Run,
    settings: MetatrainSettings,
    folder: Path,
    encoder_config: EncoderConfig,
    encoder_params: Any,
    what: str,
    validate_on: EpisodeSpec | None,
    embed: Embed | None,
) -> Model:
    """Trains stage 2; checkpoints and metrics go to ``folder``."""
    config, pool = run.config, run.splits.train
    adapted = adapts_encoder(settings.learner)
    encoder = make_encoder(encoder_config, dtype=compute_dtype(config.precision), adapted=adapted)
    if encoder_params is not None:
        check_encoder_variables(encoder, encoder_params, pool.inputs[:2])
    learner = make_learner(settings.learner, encoder, way=settings.episode.way)
    spec = training_episode(run, settings.episode, learner, settings.tasks.source)
    shape = tuple(pool.inputs.shape[1:])
    card = ModelSpec("learner", encoder_config, settings.learner, shape, way=spec.way, tokenizer=run.tokenizer)
    announce(folder, card)
    fitted = fit(
        meta_learning(learner, spec, encoder_params=encoder_params),
        training_tasks(run, settings, spec, embed),
        optimiser=settings.optimiser,
        config=settings.train,
        seed=config.seed,
        folder=folder,
        validate=validation(
            run,
            card,
            settings.validation_episodes,
            columns=[validate_on] if validate_on else None,
            ways=(card.way,) if has_head(learner, pool, spec) else (card.way, 5),
        ),
        select="val_accuracy" if settings.tasks.source == "labels" else None,  # else labels would choose the weights
        description=f"{what} ({settings.learner.name})",
        settings=training_settings(config),
        devices=run.devices_of(settings.train),
    )
    return Model(card, fitted.params, fitted.state)


def has_head(learner: MetaLearner, pool: Pool, spec: EpisodeSpec) -> bool:
    """Whether the learner has a head of its own, for the classes of its training's way alone; nothing is computed."""
    params, _ = jax.eval_shape(learner.init, jax.random.key(0), episode_of(spec, pool.inputs))
    return "head" in params


def validation(
    run: Run,
    card: ModelSpec,
    episodes: int,
    student: bool = False,
    columns: list[EpisodeSpec] | None = None,
    ways: tuple[int, ...] | None = None,
) -> Any:
    """A callback for ``fit``: accuracy on episodes of the validation classes; None where there are too few.

    Episodes are the first of ``columns``, by default 1-shot ones of the first of ``ways`` that there are classes for,
    the training's or else 5.
    """
    pool = run.splits.val
    if columns is None or not pool.count.size:
        settings = EvaluateSettings(ways=ways or (card.way, 5), shots=(1,))
        columns = settings.specs(run.splits.protocol, pool) if pool.count.size else []
    if not columns:
        return None

    def validate(params: Any, state: Any, step: int) -> dict[str, float]:
        del step
        model = Model(card, params["student"], state["student"]) if student else Model(card, params, state)
        found = evaluate_model(run, model, pool, columns[:1], episodes=episodes)
        return {"val_accuracy": next(iter(found.values())).mean}

    return validate


def work(run: Run) -> None:
    config = run.config
    start = loaded(run, config.start) if config.start else None
    features = loaded(run, config.features) if config.features else start
    model = metatrain_stage(
        run,
        config.meta,
        run.folder,
        encoder_config=start.spec.encoder if start else config.encoder,
        encoder_params=start.encoder_params if start else None,
        embed=features.embed if features else None,
    )
    way, source, images = config.meta.episode.way, config.meta.tasks.source, run.has_images
    episode = training_episode(run, config.meta.episode, model.learner(way), source)
    cells = cells_of(run, {"meta_learned": model}, config.evaluate, modes=True)
    paths = [
        *([episode_figure(run, episode)] if source == "labels" and images else []),
        curves_figure(run, {"meta-learn": run.folder}),
        embedding_figure(run, model),
        layers_figure(run, model, start.encoder_params if start else None),
        *([occlusion_figure(run, model)] if images else []),
    ]
    finish(run, cells, figure_paths=paths)


if __name__ == "__main__":
    run_experiment("metatrain", work, parse(MetatrainConfig, __doc__))
