"""Stage 1: objectives that learn features without labels."""

from metarep_jax.pretrain.config import OBJECTIVES, ObjectiveConfig, make_objective
from metarep_jax.pretrain.contrast import collapse_warning, embedding_health, nt_xent
from metarep_jax.pretrain.neighbours import mutual_neighbours
from metarep_jax.pretrain.simclr import Projector, simclr

__all__ = [
    "OBJECTIVES",
    "ObjectiveConfig",
    "Projector",
    "collapse_warning",
    "embedding_health",
    "make_objective",
    "mutual_neighbours",
    "nt_xent",
    "simclr",
]
