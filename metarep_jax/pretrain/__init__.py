"""Stage 1: objectives that learn features without labels."""

from metarep_jax.pretrain.autoencoder import autoencoder, denoising_autoencoder
from metarep_jax.pretrain.barlow import barlow
from metarep_jax.pretrain.byol import byol
from metarep_jax.pretrain.config import OBJECTIVES, ObjectiveConfig, is_judged_alone, make_objective
from metarep_jax.pretrain.contrast import info_nce, nt_xent
from metarep_jax.pretrain.cpc import cpc
from metarep_jax.pretrain.dino import dino
from metarep_jax.pretrain.health import collapse_warning, embedding_health
from metarep_jax.pretrain.mae import mae
from metarep_jax.pretrain.masked_lm import masked_lm
from metarep_jax.pretrain.moco import moco, moco_v3
from metarep_jax.pretrain.neighbours import mutual_neighbours, with_neighbours
from metarep_jax.pretrain.psco import psco
from metarep_jax.pretrain.rotation import rotation
from metarep_jax.pretrain.simclr import simclr
from metarep_jax.pretrain.simsiam import simsiam
from metarep_jax.pretrain.supcon import supcon
from metarep_jax.pretrain.swav import swav
from metarep_jax.pretrain.vae import vae
from metarep_jax.pretrain.vicreg import vicreg

__all__ = [
    "OBJECTIVES",
    "ObjectiveConfig",
    "autoencoder",
    "barlow",
    "byol",
    "collapse_warning",
    "cpc",
    "denoising_autoencoder",
    "dino",
    "embedding_health",
    "info_nce",
    "is_judged_alone",
    "mae",
    "make_objective",
    "masked_lm",
    "moco",
    "moco_v3",
    "mutual_neighbours",
    "nt_xent",
    "psco",
    "rotation",
    "simclr",
    "simsiam",
    "supcon",
    "swav",
    "vae",
    "vicreg",
    "with_neighbours",
]
