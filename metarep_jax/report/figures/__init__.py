"""The figures of a run, each a function that writes one PNG: from arrays, metrics files or results."""

from metarep_jax.report.figures.bars import save_bars
from metarep_jax.report.figures.curves import save_learning_curves
from metarep_jax.report.figures.embedding import save_embedding_map
from metarep_jax.report.figures.gains import save_gains
from metarep_jax.report.figures.layers import save_layer_similarity
from metarep_jax.report.figures.lines import save_lines
from metarep_jax.report.figures.mosaics import (
    save_episode,
    save_interpolations,
    save_reconstructions,
    save_samples,
    save_views,
)
from metarep_jax.report.figures.navigation import save_paths
from metarep_jax.report.figures.occlusion import save_occlusion
from metarep_jax.report.figures.scaling import log_slope, save_scaling
from metarep_jax.report.figures.words import HiddenWord, save_masked_words

__all__ = [
    "HiddenWord",
    "log_slope",
    "save_bars",
    "save_embedding_map",
    "save_episode",
    "save_gains",
    "save_interpolations",
    "save_layer_similarity",
    "save_learning_curves",
    "save_lines",
    "save_masked_words",
    "save_occlusion",
    "save_paths",
    "save_reconstructions",
    "save_samples",
    "save_scaling",
    "save_views",
]
