"""Judging features and learners: few-shot episodes with intervals, a linear probe, nearest neighbours."""

from metarep_jax.evaluate.features import (
    Identity,
    Whitened,
    Whitening,
    compute_features,
    feature_pool,
    fit_whitening,
    split_examples,
)
from metarep_jax.evaluate.few_shot import episode_accuracy, few_shot_accuracy
from metarep_jax.evaluate.intervals import Interval, interval
from metarep_jax.evaluate.probes import linear_probe, nearest_neighbours

__all__ = [
    "Identity",
    "Interval",
    "Whitened",
    "Whitening",
    "compute_features",
    "episode_accuracy",
    "feature_pool",
    "few_shot_accuracy",
    "fit_whitening",
    "interval",
    "linear_probe",
    "nearest_neighbours",
    "split_examples",
]
