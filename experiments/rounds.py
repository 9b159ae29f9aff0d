"""Label-free few-shot features in rounds: cluster the features, meta-learn on the clusters, and begin again.

    python -m experiments.rounds --data.name omniglot --data.data-dir DIR
    python -m experiments.rounds --start runs/pretrain-omniglot --rounds.rounds 2

No label is used before the test. Stage 1 learns features; a round averages them over slightly moved views, clusters the
training images by their neighbourhoods, and trains Prototypical Networks on tasks of clusters from the encoder it has
(Ji et al. 2019, https://arxiv.org/abs/1912.12178). Better features make purer clusters, from which the next round
learns. Each stage and round writes a folder of its own, so that the same command goes on where an interrupted run
stopped.
"""

import dataclasses
from pathlib import Path

from experiments.cli import parse
from experiments.common import CommonConfig, Run, finish, loaded, run_experiment
from experiments.evaluate import EvaluateSettings, averaged, cells_of
from experiments.features import features_model, untrained_model, whitened
from experiments.figures import bars_figure, curves_figure, embedding_figure
from experiments.metatrain import MetatrainSettings, metatrain_stage
from experiments.pretrain import PretrainSettings, pretrain_stage
from metarep_jax.data.pseudo_tasks import TaskConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import EpisodeSpec

WHITEN_AFTER = 0.1  # better than 0.25 after three rounds: experiments/results/omniglot_levers.json


@dataclasses.dataclass(frozen=True)
class RoundsSettings:
    """The rounds after stage 1."""

    rounds: int = 4
    """How many."""
    views: int = 16
    """Of each image, over which features are averaged before they are clustered."""
    whiten: float = 0.25
    """Power of the whitening of a round's features, fitted on training images, before they are clustered."""
    whiten_after: float | None = None
    """The same of the features that come out of a round; None: as whiten."""
    meta: MetatrainSettings = MetatrainSettings(
        learner=LearnerConfig(name="prototypical"),
        episode=EpisodeSpec(way=60, shot=1, query=5, rotations="classes"),
        tasks=TaskConfig(source="clusters", clustering="dense", partitions=1),
        augment="shift",
        optimiser=OptimiserConfig(name="adam", learning_rate=1e-2, schedule="cosine", warmup_steps=50),
        train=FitConfig(steps=1000, batch_size=2, validate_every=500),
    )
    """Training of a round."""

    def __post_init__(self):
        for name in ("rounds", "views"):
            if getattr(self, name) < 0:
                raise ValueError(f"RoundsSettings.{name} must not be negative, got {getattr(self, name)}")
        for name in ("whiten", "whiten_after"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 0.5:
                raise ValueError(f"RoundsSettings.{name} must lie between 0 and 0.5, got {value}")
        if self.meta.tasks.source != "clusters":
            raise ValueError(f"rounds train on clusters, got meta.tasks.source {self.meta.tasks.source}")


@dataclasses.dataclass(frozen=True)
class RoundsConfig(CommonConfig):
    """Flags of experiments.rounds."""

    start: Path | None = None
    """Run folder of stage 1; default: it is trained first."""
    pretrain: PretrainSettings = PretrainSettings()
    rounds: RoundsSettings = RoundsSettings(whiten_after=WHITEN_AFTER)
    evaluate: EvaluateSettings = EvaluateSettings()


def rounds_stage(run: Run, settings: RoundsSettings, start: Model, folder: Path) -> list[Model]:
    """The features after each round, as nearest-prototype models; ``start`` gives the first ones to cluster."""
    models, model = [], start
    for number in range(1, settings.rounds + 1):
        trained = metatrain_stage(
            run,
            settings.meta,
            folder / f"round{number}",
            encoder_config=start.spec.encoder,
            encoder_params=model.encoder_params,
            embed=averaged(run, model, settings.views),
            what=f"round {number} of {settings.rounds}",
        )
        model = features_model(run, trained.encoder_params, settings.whiten)
        after = settings.whiten_after
        models.append(model if after is None else whitened(run, model, after))
    return models


def work(run: Run) -> None:
    config = run.config
    if config.start is None:
        start = pretrain_stage(run, config.pretrain, run.folder / "pretrain")
    else:
        start = loaded(run, config.start)
        run = dataclasses.replace(run, config=dataclasses.replace(config, encoder=start.spec.encoder))
    after = rounds_stage(run, config.rounds, start, run.folder)
    models = {"untrained": untrained_model(run, config.pretrain.whiten), "pretrained": start}
    models |= {f"round_{number}": model for number, model in enumerate(after, start=1)}
    cells = cells_of(run, models, config.evaluate)
    folders = {row: run.folder / row.replace("_", "") for row in models if row.startswith("round")}
    best = list(models.values())[-1]
    paths = [curves_figure(run, folders), embedding_figure(run, best), bars_figure(run, cells)]
    finish(run, cells, figure_paths=paths)


if __name__ == "__main__":
    run_experiment("rounds", work, parse(RoundsConfig, __doc__))
