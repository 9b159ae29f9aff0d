"""Two things to do with a trained stage 1 that only the log of levers does: to judge its projector, and to have a new
encoder learn its features."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from experiments.common import Run, stage, training_settings
from experiments.evaluate import averaged
from experiments.features import features_model, fitting_rows
from experiments.pretrain import PretrainSettings, train_objective, training_feed
from metarep_jax.data import make_augment
from metarep_jax.distill import distil_features
from metarep_jax.encoders import encoder_variables, make_encoder, refit_statistics
from metarep_jax.encoders.features import Identity, compute_features, fit_whitening, unit_rows
from metarep_jax.evaluate import Interval, few_shot_accuracy
from metarep_jax.evaluate.pools import feature_pool
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model
from metarep_jax.pretrain.heads import Head
from metarep_jax.train import AXIS, compute_dtype, fit, pretraining
from metarep_jax.types import EpisodeSpec

VIEWS = 32  # over which the features of a teacher are averaged


class Projected(nn.Module):
    """An encoder and the projector after it, called as an encoder is."""

    encoder: nn.Module
    projector: nn.Module

    def __call__(self, x: Shaped[Array, "n ..."], mask: Any = None, running: bool = False) -> Float[Array, "n dim"]:
        return self.projector(self.encoder(x, mask, running), running)


def projector_accuracy(
    run: Run, settings: PretrainSettings, folder: Path, specs: list[EpisodeSpec], *, episodes: int, whiten: float
) -> dict[str, Interval]:
    """Accuracy in % on the validation classes by nearest prototypes (cosine) of a trained SimCLR's projections, with
    norms and whitening fitted on training images, as those of features are."""
    trained = train_objective(run, settings, folder)  # from its last checkpoint
    params = {name: trained.params[name] for name in ("encoder", "projector")}
    widths = tuple(params["projector"][f"Dense_{index}"]["kernel"].shape[1] for index in (0, 1))
    module = Projected(make_encoder(run.config.encoder), Head(widths))
    some = fitting_rows(run)
    stats = {name: trained.state[name] for name in params}
    variables = refit_statistics(module, {"params": params, "batch_stats": stats}, some)
    embed = jax.jit(partial(module.apply, variables, running=True))
    whitening = fit_whitening(compute_features(embed, some), power=whiten)
    rows = feature_pool(lambda inputs: whitening(embed(inputs)), run.splits.val)
    identity: Any = Identity()
    found, nothing = {}, {"encoder": {}}
    for spec in specs:
        learner = make_learner(LearnerConfig(name="prototypical", distance="cosine"), identity, way=spec.way)
        key = run.key(2)  # the episodes of evaluate_model
        found[spec.name] = few_shot_accuracy(
            learner, nothing, nothing, rows, spec, key=key, episodes=episodes, mapper=run.mapper
        )
    return found


def self_distilled(run: Run, settings: PretrainSettings, teacher: Model, folder: Path) -> Model:
    """A new encoder of the run's shape that learned the ``teacher``'s features, averaged over views of each training
    image; taken from ``folder`` when an earlier run finished it there."""

    def train() -> Model:
        config = run.config
        encoder = make_encoder(config.encoder, axis_name=AXIS, dtype=compute_dtype(config.precision))
        targets = unit_rows(compute_features(averaged(run, teacher, VIEWS), run.splits.train.inputs))
        objective = distil_features(
            encoder,
            teach=lambda index: targets[index],
            width=targets.shape[1],
            augment=make_augment(settings.augment),
            axis_name=AXIS,
        )
        feed, _ = training_feed(run, settings)
        fitted = fit(
            pretraining(objective),
            feed,
            optimiser=settings.optimiser,
            config=settings.train,
            seed=config.seed,
            folder=folder,
            description="self-distil",
            settings=training_settings(config),
            devices=run.devices_of(settings.train),
        )
        return features_model(run, encoder_variables(fitted.params, fitted.state), settings.whiten)

    return stage(folder, "self-distil", train, settings.train)
