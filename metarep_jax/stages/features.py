"""Frozen features as models: nearest prototypes by cosine, with norms and whitening fitted on training rows."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from metarep_jax.data import Splits
from metarep_jax.encoders import EncoderConfig, make_encoder, read_pretrained, refit_statistics
from metarep_jax.encoders.features import compute_features, fit_whitening
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model, ModelSpec
from metarep_jax.stages.compute import UNTRAINED, Compute

FITTED_ROWS = 20_000  # training rows that norms and whitening are fitted on; more changes nothing


def features_model(spec: ModelSpec, variables: Any, splits: Splits, whiten: float) -> Model:
    """Frozen features as a nearest-prototype model by cosine, normalised and whitened by the training rows.

    Args:
      spec: of ``features_spec``.
      variables: the encoder's.
      splits: with the training rows.
      whiten: power of the whitening, in [0, 0.5].
    """
    variables = refit_statistics(make_encoder(spec.encoder), variables, fitting_rows(splits))
    model = Model(spec, {"encoder": variables["params"]}, {"encoder": variables.get("batch_stats", {})})
    return whitened(model, splits, whiten)


def whitened(model: Model, splits: Splits, power: float) -> Model:
    """The model with its features whitened by that power, in place of how they were, fitted on the training rows."""
    bare = dataclasses.replace(model, whitening=None)
    whitening = fit_whitening(compute_features(bare.embed, fitting_rows(splits)), power=power)
    return dataclasses.replace(bare, whitening=whitening)


def features_spec(encoder: EncoderConfig, splits: Splits) -> ModelSpec:
    """What there is to know of such a model before there is one."""
    learner = LearnerConfig("prototypical", distance="cosine")
    shape = tuple(splits.train.inputs.shape[1:])
    return ModelSpec("learner", encoder, learner, shape, tokenizer=tokenizer_digest(splits))


def model_of_weights_file(file: Path, splits: Splits) -> Model:
    """Frozen features of an encoder whose weights a safetensors file holds, as they are: nothing is fitted.

    Raises:
      ValueError: for a pickle or another network, and for images of another size or number of channels than it takes.
    """
    weights = read_pretrained(file)
    spec = features_spec(weights.encoder, splits)
    shape = (weights.image_size, weights.image_size, 3)
    if spec.shape != shape:
        raise ValueError(
            f"the weights in {file} are of images {shape[0]}×{shape[1]} with 3 channels, the data are of shape "
            f"{list(spec.shape)}; give --data.image-size {shape[0]} and --data.channels 3"
        )
    variables = weights.variables
    return Model(spec, {"encoder": variables["params"]}, {"encoder": variables.get("batch_stats", {})})


def fitted_encoder(encoder: EncoderConfig, splits: Splits) -> EncoderConfig:
    """The encoder with what the data say: no more token ids than the tokenizer has, recordings at their own rate."""
    if splits.tokenizer is not None and encoder.get("vocabulary") is not None:
        return dataclasses.replace(encoder, vocabulary=min(encoder.get("vocabulary"), splits.tokenizer.size))
    rate = splits.config.get("rate")  # None: of arrays, which do not say
    if None not in (encoder.get("rate"), rate) and splits.train.inputs.ndim == 2:
        return dataclasses.replace(encoder, rate=rate)
    return encoder


def tokenizer_digest(splits: Splits) -> str:
    """Of text: the digest of the tokenizer that made the inputs; else ""."""
    return "" if splits.tokenizer is None else splits.tokenizer.digest


def fitting_rows(splits: Splits) -> Shaped[Array, "n ..."]:
    """The training rows that norms and whitening are fitted on, from all over the pool."""
    pool = splits.train
    return pool.inputs[:: max(pool.label.shape[0] // FITTED_ROWS, 1)]


def bare_features(model: Model, inputs: Shaped[np.ndarray, "n ..."]) -> Float[Array, "n dim"]:
    """The features of a model's encoder as they are, not whitened."""
    return compute_features(dataclasses.replace(model, whitening=None).embed, jnp.asarray(inputs))


def features_without_weights(encoder: EncoderConfig, inputs: Shaped[np.ndarray, "n ..."]) -> Float[Array, "n dim"]:
    """The features of an encoder of which nothing is learned, such as log-mel energies."""
    return compute_features(jax.jit(partial(make_encoder(encoder).apply, {})), jnp.asarray(inputs))


def untrained_model(encoder: EncoderConfig, splits: Splits, compute: Compute, whiten: float) -> Model:
    """The encoder with its initial weights, treated in the same way: what the architecture alone gives."""
    variables = jax.jit(make_encoder(encoder).init)(compute.key(UNTRAINED), splits.train.inputs[:2])
    return features_model(features_spec(encoder, splits), variables, splits, whiten)
