"""Frozen features as models: nearest prototypes by cosine, with norms and whitening fitted on training rows."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Shaped

from experiments.common import Run
from metarep_jax.encoders import EncoderConfig, make_encoder, refit_statistics
from metarep_jax.encoders.features import compute_features, fit_whitening
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model, ModelSpec

FITTED_ROWS = 20_000  # training rows that norms and whitening are fitted on; more changes nothing


def features_model(run: Run, variables: Any, whiten: float, spec: ModelSpec | None = None) -> Model:
    """Frozen features as a nearest-prototype model by cosine, normalised and whitened by the training rows.

    ``spec``: of the model, where its encoder is not the one of the run's config.
    """
    spec = spec or features_spec(run, run.config.encoder)
    variables = refit_statistics(make_encoder(spec.encoder), variables, fitting_rows(run))
    model = Model(spec, {"encoder": variables["params"]}, {"encoder": variables.get("batch_stats", {})})
    return whitened(run, model, whiten)


def whitened(run: Run, model: Model, power: float) -> Model:
    """The model with its features whitened by that power, in place of how they were, fitted on the training rows."""
    bare = dataclasses.replace(model, whitening=None, _compiled={})
    whitening = fit_whitening(compute_features(bare.embed, fitting_rows(run)), power=power)
    return dataclasses.replace(bare, whitening=whitening)


def features_spec(run: Run, encoder: EncoderConfig) -> ModelSpec:
    """What there is to know of such a model before there is one."""
    shape = tuple(run.splits.train.inputs.shape[1:])
    learner = LearnerConfig(name="prototypical", distance="cosine")
    return ModelSpec("learner", encoder, learner, shape, tokenizer=run.tokenizer)


def fitting_rows(run: Run) -> Shaped[Array, "n ..."]:
    """The training rows that norms and whitening are fitted on, from all over the pool."""
    pool = run.splits.train
    return pool.inputs[:: max(pool.label.shape[0] // FITTED_ROWS, 1)]


def untrained_model(run: Run, whiten: float) -> Model:
    """The run's encoder with its initial weights, treated in the same way: what the architecture alone gives."""
    encoder = make_encoder(run.config.encoder)
    variables = jax.jit(encoder.init)(run.key(1), run.splits.train.inputs[:2])
    return features_model(run, variables, whiten)
