"""Label-free few-shot features in rounds: cluster the features, meta-learn on the clusters, and begin again."""

import dataclasses

from metarep_jax.data import Splits
from metarep_jax.data.tasks.pseudo_tasks import TaskConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.evaluate import averaged_features
from metarep_jax.stages.features import features_model, features_spec, whitened
from metarep_jax.stages.metatrain import MetatrainSettings, metatrain
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.typed_settings import Settings
from metarep_jax.types import EpisodeSpec

WHITEN_AFTER = 0.1  # better than 0.25 after three rounds: experiments/results/omniglot_levers.json


@dataclasses.dataclass(frozen=True)
class RoundsSettings(Settings):
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
        learner=LearnerConfig("prototypical"),
        episode=EpisodeSpec(way=60, shot=1, query=5, rotations="classes"),
        tasks=TaskConfig(source="clusters", clustering="dense", partitions=1),
        augment="shift",
        optimiser=OptimiserConfig(name="adam", learning_rate=1e-2, schedule="cosine", warmup_steps=50),
        train=FitConfig(steps=1000, batch_size=2, validate_every=500),
    )
    """Training of a round."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("rounds", "views"):
            if getattr(self, name) < 0:
                raise ValueError(f"rounds.{name} must not be negative, got {getattr(self, name)}")
        for name in ("whiten", "whiten_after"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 0.5:
                raise ValueError(f"rounds.{name} must lie between 0 and 0.5, got {value}")
        if self.meta.tasks.source != "clusters":
            raise ValueError(f"rounds train on clusters, got meta.tasks.source {self.meta.tasks.source}")


def rounds(settings: RoundsSettings, splits: Splits, start: Model, compute: Compute) -> list[Model]:
    """The features after each round, as nearest-prototype models; ``start`` gives the first ones to cluster.

    A round averages features over slightly moved views, clusters the training images by their neighbourhoods, and
    trains on tasks of clusters from the encoder that it has (Ji et al. 2019, https://arxiv.org/abs/1912.12178). Better
    features make purer clusters, from which the next round learns. No label is used.

    Args:
      settings: how many rounds, and the training of each.
      splits: the data.
      start: features of stage 1.
      compute: each round writes the folder ``roundN`` below its folder.
    """
    models, model = [], start
    for number in range(1, settings.rounds + 1):
        trained = metatrain(
            settings.meta,
            splits,
            compute.below(f"round{number}"),
            start=model,
            embed=averaged_features(model, settings.views),
            what=f"round {number} of {settings.rounds}",
        )
        model = features_model(
            features_spec(start.spec.encoder, splits), trained.encoder_params, splits, settings.whiten
        )
        after = settings.whiten_after
        models.append(model if after is None else whitened(model, splits, after))
    return models
