"""The figures of a run, each a function that writes one PNG: from arrays, metrics files or results."""

from metarep_jax.report.figures.bars import save_bars
from metarep_jax.report.figures.curves import save_learning_curves
from metarep_jax.report.figures.embedding import save_embedding_map
from metarep_jax.report.figures.layers import save_layer_similarity
from metarep_jax.report.figures.mosaics import save_episode, save_views
from metarep_jax.report.figures.navigation import save_paths, save_returns
from metarep_jax.report.figures.occlusion import save_occlusion

__all__ = [
    "save_bars",
    "save_embedding_map",
    "save_episode",
    "save_layer_similarity",
    "save_learning_curves",
    "save_occlusion",
    "save_paths",
    "save_returns",
    "save_views",
]
