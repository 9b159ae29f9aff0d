"""Stage 1: objectives that learn features without labels."""

from metarep_jax.pretrain.contrast import collapse_warning, embedding_health, nt_xent
from metarep_jax.pretrain.neighbours import mutual_neighbours
from metarep_jax.pretrain.simclr import Projector, simclr

__all__ = ["Projector", "collapse_warning", "embedding_health", "mutual_neighbours", "nt_xent", "simclr"]
