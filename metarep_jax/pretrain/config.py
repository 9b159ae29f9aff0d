"""Which objective of stage 1: by its name here, or by the dotted path of a factory of your own."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from metarep_jax.data.augment import make_augment
from metarep_jax.factories import call_with, named_factory, needs
from metarep_jax.pretrain.autoencoder import autoencoder, denoising_autoencoder
from metarep_jax.pretrain.barlow import barlow
from metarep_jax.pretrain.byol import byol
from metarep_jax.pretrain.cpc import Negatives, cpc
from metarep_jax.pretrain.dino import dino
from metarep_jax.pretrain.mae import mae
from metarep_jax.pretrain.masked_lm import masked_lm
from metarep_jax.pretrain.moco import moco, moco_v3
from metarep_jax.pretrain.neighbours import with_neighbours
from metarep_jax.pretrain.psco import psco
from metarep_jax.pretrain.rotation import rotation
from metarep_jax.pretrain.simclr import simclr
from metarep_jax.pretrain.simsiam import simsiam
from metarep_jax.pretrain.supcon import supcon
from metarep_jax.pretrain.swav import swav
from metarep_jax.pretrain.vae import Likelihood, vae
from metarep_jax.pretrain.vicreg import vicreg
from metarep_jax.types import Objective

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "autoencoder": autoencoder,
    "barlow": barlow,
    "byol": byol,
    "cpc": cpc,
    "denoising_autoencoder": denoising_autoencoder,
    "dino": dino,
    "mae": mae,
    "masked_lm": masked_lm,
    "moco": moco,
    "moco_v3": moco_v3,
    "psco": psco,
    "rotation": rotation,
    "simclr": simclr,
    "simsiam": simsiam,
    "supcon": supcon,
    "swav": swav,
    "vae": vae,
    "vicreg": vicreg,
}
POSITIVE = (
    *("temperature", "hidden", "out", "bottleneck", "queue", "groups", "shot", "task_temperature", "prototypes"),
    *("epsilon", "iterations", "teacher_temperature", "off_diagonal", "invariance", "variance", "covariance"),
)


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and its settings. One that is not given is the objective's own default; an objective leaves
    alone what it does not take."""

    name: str = "simclr"
    """A name of metarep_jax.pretrain.OBJECTIVES, or the dotted path of your own factory: my_module:my_objective."""
    temperature: float | None = None
    """Contrastive objectives: divides the cosines."""
    hidden: int | None = None
    """Hidden units of the projector."""
    out: int | None = None
    """Outputs of the projector."""
    bottleneck: int | None = None
    """simsiam: hidden units of the predictor."""
    momentum: float | None = None
    """Objectives with a teacher: the share of itself that it keeps at an update."""
    queue: int | None = None
    """moco, psco: embeddings of earlier batches that are kept; a multiple of the batch."""
    groups: int | None = None
    """moco: parts of the global batch that are normalised each by itself."""
    shot: int | None = None
    """psco: support embeddings a pseudo-class."""
    task_temperature: float | None = None
    """psco: divides the cosines of a task's queries and support."""
    prototypes: int | None = None
    """swav, dino: clusters, or outputs, that views are assigned to."""
    epsilon: float | None = None
    """swav, psco: how soft the Sinkhorn assignments are."""
    iterations: int | None = None
    """swav, psco: of the Sinkhorn assignments."""
    teacher_temperature: float | None = None
    """dino: of the teacher; lower than temperature, which sharpens its outputs."""
    centre_momentum: float | None = None
    """dino: the share of itself that the mean of the teacher's outputs keeps at a step."""
    freeze_steps: int | None = None
    """swav, dino: first steps in which the prototypes stay as they are."""
    local_crops: int | None = None
    """swav, dino: views beside the two, of a small part of the image (multi-crop)."""
    local_augment: str = "local-crop"
    """swav, dino: how those are made: a preset of metarep_jax.data.augment."""
    off_diagonal: float | None = None
    """barlow: weight of the redundancy term."""
    invariance: float | None = None
    """vicreg: weight of the views' distance."""
    variance: float | None = None
    """vicreg: weight of the spread of every dimension."""
    covariance: float | None = None
    """vicreg: weight of the covariances."""
    noise: float | None = None
    """autoencoders: standard deviation of the noise added to what the encoder sees."""
    drop: float | None = None
    """autoencoders: share of what the encoder sees that is set to 0."""
    latent: int | None = None
    """vae: dimensions of the latent variable."""
    likelihood: Likelihood | None = None
    """vae: of pixels, bernoulli or gaussian."""
    std: float | None = None
    """vae: standard deviation of the gaussian likelihood."""
    beta: float | None = None
    """vae: weight of the divergence from the prior."""
    free_bits: float | None = None
    """vae: nats that each latent dimension spends freely."""
    binarise: bool | None = None
    """vae: draw pixels anew as 0 or 1 each step, by their grey values."""
    mask_ratio: float | None = None
    """mae: share of the patches that are left out, in (0, 1)."""
    normalise: bool | None = None
    """mae: whether patches are predicted relative to their own mean and deviation."""
    decoder_width: int | None = None
    """mae: of the decoder's vectors."""
    decoder_depth: int | None = None
    """mae: the decoder's blocks."""
    decoder_heads: int | None = None
    """mae: the decoder's heads of attention, which must divide its width."""
    share: float | None = None
    """masked_lm: share of the tokens that are predicted, in (0, 1)."""
    ahead: tuple[int, ...] | None = None
    """cpc: how many frames ahead is predicted, once for each."""
    negatives: Negatives | None = None
    """cpc: frames that the right one is told apart from: within its sequence, across sequences, or all."""
    neighbours: int = 0
    """Mutual nearest neighbours, of this many, serve as partners too; 0: only views of the same image. For every
    objective of two views but supcon, whose partners have the label of the image."""
    neighbours_after: int = 0
    """Step from which neighbours serve; they are found anew every train.refresh_every steps."""

    def __post_init__(self):
        for field in POSITIVE:
            if (value := getattr(self, field)) is not None and value <= 0:
                raise ValueError(f"ObjectiveConfig.{field} must be positive, got {value}")
        for field in ("neighbours", "neighbours_after"):
            if getattr(self, field) < 0:
                raise ValueError(f"ObjectiveConfig.{field} must not be negative, got {getattr(self, field)}")
        named_factory(self.name, OBJECTIVES, "objective")


def make_objective(
    config: ObjectiveConfig,
    encoder: nn.Module,
    *,
    augment: Callable[..., Any] | None = None,
    axis_name: str | None = None,
    total_steps: int | None = None,
) -> Objective:
    """The objective that ``config`` names, over ``encoder``.

    Its factory is called as ``factory(encoder, **those of the arguments here and of config's fields that it has
    parameters for)``.

    Args:
      config: which objective.
      encoder: a module of ``metarep_jax.encoders``.
      augment: makes views of images; objectives that need none do not take it.
      axis_name: the mapped axis over which the batch is sharded, or None.
      total_steps: of the training, for schedules that end with it.

    Raises:
      ValueError: for an unknown name, a path that does not import, a factory that returns something else, or neighbours
        for an objective that has no place for them.
    """
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "name"}
    given |= {"augment": augment, "axis_name": axis_name, "total_steps": total_steps}
    given["local_augment"] = make_augment(config.local_augment) if config.local_crops else None
    factory = named_factory(config.name, OBJECTIVES, "objective")
    if augment is None and has_views(config):
        raise ValueError(
            f"{config.name} needs views of images, and these inputs have none; take masked_lm for text, cpc for audio"
        )
    if config.neighbours and (config.name == "supcon" or not has_views(config)):
        raise ValueError(
            f"neighbours serve as the other view of an image, and {config.name} has none or takes labels for it; leave "
            "neighbours at 0, or take an objective of two views"
        )
    objective = call_with(factory, encoder, wanted=Objective, **given)
    if config.neighbours:
        return with_neighbours(objective, neighbours=config.neighbours, after=config.neighbours_after)
    return objective


def has_views(config: ObjectiveConfig) -> bool:
    """Whether the objective is one of views of an image, and cannot do without them."""
    return needs(named_factory(config.name, OBJECTIVES, "objective"), "augment")
