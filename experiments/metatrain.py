"""Stage 2: meta-learn on labelled training classes, from scratch or from pretrained features.

    python -m experiments.metatrain                                             # MAML on glyphs
    python -m experiments.metatrain --learner prototypical --meta.episode.way 20
    python -m experiments.metatrain --start runs/pretrain-glyphs                # from stage 1's encoder
    python -m experiments.metatrain --learner my_module:my_learner              # a learner of your own

The best checkpoint on the validation classes is kept and judged on the test classes.
"""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.common import CommonConfig, LearnerFlag, Run, finish, parse, run_experiment, stage, training_settings
from experiments.evaluate import EvaluateSettings, cells_of, evaluate_model
from experiments.figures import curves_figure, embedding_figure, episode_figure, layers_figure, occlusion_figure
from metarep_jax.data import augmented_feed, check_episode_spec, episode_feed, make_augment
from metarep_jax.encoders import EncoderConfig, check_encoder_variables, make_encoder
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.model import Model, ModelSpec, load
from metarep_jax.train import FitConfig, OptimiserConfig, compute_dtype, fit, meta_learning
from metarep_jax.types import EpisodeSpec


@dataclasses.dataclass(frozen=True)
class MetatrainSettings:
    """A meta-learner and its training. ``train.batch_size`` counts tasks."""

    learner: LearnerConfig = LearnerConfig()
    episode: EpisodeSpec = EpisodeSpec(way=5, shot=1, query=5)
    """The training episode. Rotations "none" here means those of the protocol."""
    augment: str = "none"
    """Augmentation of support and query images in training: a preset of metarep_jax.data.augment."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-3)
    train: FitConfig = FitConfig(steps=2000, batch_size=32, validate_every=500)
    validation_episodes: int = 200
    """Episodes on validation classes, by which the best checkpoint is chosen."""


@dataclasses.dataclass(frozen=True)
class MetatrainConfig(LearnerFlag, CommonConfig):
    """Flags of experiments.metatrain."""

    start: Path | None = None
    """Run folder whose encoder to start from; default: from scratch."""
    meta: MetatrainSettings = MetatrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


def training_episode(run: Run, episode: EpisodeSpec, learner: Any = None) -> EpisodeSpec:
    """The training episode with the protocol's rotations, as the learner wants it, checked against the data."""
    if episode.rotations == "none":
        episode = dataclasses.replace(episode, rotations=run.splits.protocol.train_rotations)
    episode = episode if learner is None else learner.episode_spec(episode)
    check_episode_spec(run.splits.train, episode, run.splits.class_names["train"], "train")
    return episode


def metatrain_stage(
    run: Run,
    settings: MetatrainSettings,
    folder: Path,
    *,
    encoder_config: EncoderConfig,
    encoder_params: Any = None,
    what: str = "meta-learn",
    validate_on: EpisodeSpec | None = None,
) -> Model:
    """The meta-trained model; taken from ``folder`` when an earlier run finished it there.

    ``validate_on``: the episodes on validation classes by which the best checkpoint is chosen; None: 1-shot ones.
    """

    def train() -> Model:
        return metatrained_model(run, settings, folder, encoder_config, encoder_params, what, validate_on)

    return stage(folder, what, train, settings.train)


def metatrained_model(
    run: Run,
    settings: MetatrainSettings,
    folder: Path,
    encoder_config: EncoderConfig,
    encoder_params: Any,
    what: str,
    validate_on: EpisodeSpec | None,
) -> Model:
    """Trains stage 2; checkpoints and metrics go to ``folder``."""
    config, pool = run.config, run.splits.train
    adapted = adapts_encoder(settings.learner.name)
    encoder = make_encoder(encoder_config, dtype=compute_dtype(config.precision), adapted=adapted)
    if encoder_params is not None:
        check_encoder_variables(encoder, encoder_params, pool.inputs[:2])
    learner = make_learner(settings.learner, encoder, way=settings.episode.way)
    spec = training_episode(run, settings.episode, learner)
    card = ModelSpec("learner", encoder_config, settings.learner, tuple(pool.inputs.shape[1:]), way=spec.way)
    fitted = fit(
        meta_learning(learner, spec, encoder_params=encoder_params),
        augmented_feed(episode_feed(pool, spec, settings.train.batch_size), make_augment(settings.augment)),
        optimiser=settings.optimiser,
        config=settings.train,
        seed=config.seed,
        folder=folder,
        validate=validation(run, card, settings.validation_episodes, columns=[validate_on] if validate_on else None),
        select="val_accuracy",
        description=f"{what} ({settings.learner.name})",
        settings=training_settings(config),
        devices=run.devices,
    )
    return Model(card, fitted.params, fitted.state)


def validation(
    run: Run, card: ModelSpec, episodes: int, student: bool = False, columns: list[EpisodeSpec] | None = None
) -> Any:
    """A callback for ``fit``: accuracy on episodes of the validation classes; None where there are too few.

    Episodes are the first of ``columns``, by default 1-shot ones of the training's way or of 5.
    """
    pool = run.splits.val
    if columns is None or not pool.count.size:
        settings = EvaluateSettings(ways=(card.way, 5), shots=(1,))
        columns = settings.specs(run.splits.protocol, pool) if pool.count.size else []
    if not columns:
        return None

    def validate(params: Any, state: Any, step: int) -> dict[str, float]:
        del step
        model = Model(card, params["student"] if student else params, state)
        found = evaluate_model(run, model, pool, columns[:1], episodes=episodes)
        return {"val_accuracy": next(iter(found.values())).mean}

    return validate


def work(run: Run) -> None:
    config = run.config
    start = load(config.start) if config.start else None
    model = metatrain_stage(
        run,
        config.meta,
        run.folder,
        encoder_config=start.spec.encoder if start else config.encoder,
        encoder_params=start.encoder_params if start else None,
    )
    cells = cells_of(run, {"meta_learned": model}, config.evaluate, modes=True)
    paths = [
        episode_figure(run, training_episode(run, config.meta.episode)),
        curves_figure(run, {"meta-learn": run.folder}),
        embedding_figure(run, model),
        layers_figure(run, model, start.encoder_params if start else None),
        occlusion_figure(run, model),
    ]
    finish(run, cells, figure_paths=paths)


if __name__ == "__main__":
    run_experiment("metatrain", work, parse(MetatrainConfig, __doc__))
