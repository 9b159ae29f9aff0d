"""Two things to do with a trained stage 1 that only the log of levers does: to judge its projector, and to have a new
encoder learn its features."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from experiments.features import features_model, fitting_rows
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from experiments.common import Run, stage
from experiments.evaluate import averaged
from experiments.pretrain import PretrainSettings, train_objective
from metarep_jax.distill import as_objective, feature_loss, feature_regression, targets_by_index
from metarep_jax.encoders import encoder_variables, make_encoder, refit_statistics
from metarep_jax.encoders.features import compute_features, fit_whitening, unit_rows
from metarep_jax.model import Model
from metarep_jax.pretrain.heads import Head
from metarep_jax.types import Objective

VIEWS = 32  # over which the features of a teacher are averaged


class Projected(nn.Module):
    """An encoder and the projector after it, called as an encoder is."""

    encoder: nn.Module
    projector: nn.Module

    def __call__(self, x: Shaped[Array, "n ..."], mask: Any = None, running: bool = False) -> Float[Array, "n dim"]:
        return self.projector(self.encoder(x, mask, running), running)


def projector_features(
    run: Run, settings: PretrainSettings, folder: Path
) -> Callable[[Shaped[Array, "n ..."]], Float[Array, "n dim"]]:
    """The projections of a SimCLR that was trained in ``folder``, with norms and whitening fitted on training images,
    as those of features are."""
    trained = train_objective(run, settings, folder)  # from its last checkpoint
    params = {name: trained.params[name] for name in ("encoder", "projector")}
    widths = tuple(params["projector"][f"Dense_{index}"]["kernel"].shape[1] for index in (0, 1))
    module, rows = Projected(make_encoder(run.config.encoder), Head(widths)), fitting_rows(run)
    stats = {name: trained.state[name] for name in params}
    variables = refit_statistics(module, {"params": params, "batch_stats": stats}, rows)
    embed = jax.jit(partial(module.apply, variables, running=True))
    whitening = fit_whitening(compute_features(embed, rows), power=settings.whiten)
    return lambda inputs: whitening(embed(inputs))


def self_distilled(run: Run, settings: PretrainSettings, teacher: Model, folder: Path) -> Model:
    """A new encoder of the run's shape that learned the ``teacher``'s features, averaged over views of each training
    image; taken from ``folder`` when an earlier run finished it there.

    Raises:
      ValueError: for settings with turned images, of which the teacher's features are not at hand.
    """
    if settings.rotations:
        raise ValueError("self-distillation learns the features of images as they are; leave rotations out")

    def train() -> Model:
        targets = unit_rows(compute_features(averaged(run, teacher, VIEWS), run.splits.train.inputs))

        def self_distillation(encoder: nn.Module, *, augment: Any, axis_name: str, total_steps: int) -> Objective:
            del total_steps
            loss, teacher = feature_regression(axis_name=axis_name), targets_by_index(targets)
            distilled = feature_loss(encoder, loss, teacher=teacher, augment=augment, axis_name=axis_name)
            return as_objective(encoder, distilled)

        trained = train_objective(run, settings, folder, self_distillation)
        return features_model(run, encoder_variables(trained.params, trained.state), settings.whiten)

    return stage(folder, "self-distil", train, settings.train)
