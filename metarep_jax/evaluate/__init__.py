"""Judging features and learners: few-shot episodes with intervals, a linear probe, nearest neighbours."""

from metarep_jax.evaluate.few_shot import episode_accuracy, few_shot_accuracy
from metarep_jax.evaluate.intervals import Interval, interval
from metarep_jax.evaluate.pools import feature_pool, split_examples
from metarep_jax.evaluate.probes import linear_probe, nearest_neighbours

__all__ = [
    "Interval",
    "episode_accuracy",
    "feature_pool",
    "few_shot_accuracy",
    "interval",
    "linear_probe",
    "nearest_neighbours",
    "split_examples",
]
