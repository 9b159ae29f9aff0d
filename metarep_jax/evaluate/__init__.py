"""Judging features and learners: few-shot episodes with intervals, a linear probe, nearest neighbours."""

from metarep_jax.evaluate.few_shot import episode_accuracy, few_shot_accuracy, few_shot_values
from metarep_jax.evaluate.held_out import held_out, unigram
from metarep_jax.evaluate.intervals import (
    Interval,
    interval,
    interval_over_folds,
    interval_over_seeds,
    paired_difference,
)
from metarep_jax.evaluate.occlusion import occlusion_maps
from metarep_jax.evaluate.pools import feature_pool, split_examples
from metarep_jax.evaluate.probes import chosen_l2, linear_probe, nearest_neighbours, probe_hits
from metarep_jax.evaluate.similarity import adaptation_similarity, layer_outputs, linear_cka, variables_similarity

__all__ = [
    "Interval",
    "adaptation_similarity",
    "chosen_l2",
    "episode_accuracy",
    "feature_pool",
    "few_shot_accuracy",
    "few_shot_values",
    "held_out",
    "interval",
    "interval_over_folds",
    "interval_over_seeds",
    "layer_outputs",
    "linear_cka",
    "linear_probe",
    "nearest_neighbours",
    "occlusion_maps",
    "paired_difference",
    "probe_hits",
    "split_examples",
    "unigram",
    "variables_similarity",
]
