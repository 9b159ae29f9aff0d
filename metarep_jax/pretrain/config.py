"""Which objective of stage 1: by its name here, or by the dotted path of a factory of your own."""

import inspect
from collections.abc import Callable
from typing import Any, get_args

from flax import linen as nn

from metarep_jax.choices import Choice
from metarep_jax.pretrain.autoencoder import autoencoder, denoising_autoencoder
from metarep_jax.pretrain.barlow import barlow
from metarep_jax.pretrain.byol import byol
from metarep_jax.pretrain.cpc import cpc
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
from metarep_jax.pretrain.vae import vae
from metarep_jax.pretrain.vicreg import vicreg
from metarep_jax.types import Need, Objective

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


class ObjectiveConfig(Choice):
    """Which objective of stage 1, with its own settings: ``ObjectiveConfig("simclr", temperature=0.1)``."""

    what = "objective"
    known = OBJECTIVES
    supplied = frozenset({"encoder", "augment", "axis_name", "total_steps"})
    default = "simclr"


def make_objective(
    config: ObjectiveConfig,
    encoder: nn.Module,
    *,
    augment: Callable[..., Any] | None = None,
    axis_name: str | None = None,
    total_steps: int | None = None,
    neighbours: int = 0,
    neighbours_after: int = 0,
) -> Objective:
    """The objective that ``config`` names, over ``encoder``.

    Its factory is called as ``factory(encoder, **settings)``, with those of the arguments here that it takes.

    Args:
      config: which objective.
      encoder: a module of ``metarep_jax.encoders``.
      augment: makes views of images; objectives that need none do not take it.
      axis_name: the mapped axis over which the batch is sharded, or None.
      total_steps: of the training, for schedules that end with it.
      neighbours, neighbours_after: how many mutual nearest neighbours serve as partners too, and from which step on;
        0: only views of the same image.

    Raises:
      ValueError: for values out of range, a factory that returns something else, views that there are none of, or
        neighbours for an objective that has no place for them.
    """
    if augment is None and requires_augment(config):
        raise ValueError(no_views(config.name))
    how = {"augment": augment, "axis_name": axis_name, "total_steps": total_steps}
    objective = config.build(
        encoder, wanted=Objective, **{name: value for name, value in how.items() if value is not None}
    )
    if requires_augment(config) and "views" not in objective.needs:
        objective = objective._replace(needs=("views", *objective.needs))  # one of your own need not say it twice
    if unknown := set(objective.needs) - set(get_args(Need)):
        raise ValueError(f"{config.name} needs {', '.join(sorted(unknown))}; known needs: {', '.join(get_args(Need))}")
    if augment is None and "views" in objective.needs:
        raise ValueError(no_views(config.name))
    if not neighbours:
        return objective
    if "views" not in objective.needs or "classmates" in objective.needs:
        raise ValueError(
            f"neighbours serve as the other view of an image, and {config.name} has none or takes labels for it; leave "
            "neighbours at 0, or take an objective of two views"
        )
    return with_neighbours(objective, neighbours=neighbours, after=neighbours_after)


def is_judged_alone(objective: Objective) -> bool:
    """Whether the loss on held-out rows says something by itself: that of matching two views says little, unless the
    objective brings its own ``judge``."""
    return "views" not in objective.needs or objective.judge is not None


def requires_augment(config: ObjectiveConfig) -> bool:
    """Whether the factory cannot be called without ``augment``."""
    parameter = inspect.signature(config.factory).parameters.get("augment")
    return parameter is not None and parameter.default is parameter.empty


def no_views(name: str) -> str:
    """The sentence about inputs that no views can be taken of."""
    return f"{name} needs views of images, and these inputs have none; take masked_lm for text, cpc for audio"
