"""Which objective of stage 1: by its name here, or by the dotted path of a factory of your own."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from metarep_jax.factories import call_with, named_factory
from metarep_jax.pretrain.simclr import simclr
from metarep_jax.types import Objective

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "simclr": simclr,
}


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
    neighbours: int = 0
    """Mutual nearest neighbours, of this many, serve as partners too; 0: only views of the same image."""
    neighbours_after: int = 0
    """Step from which neighbours serve; they are found anew every train.refresh_every steps."""

    def __post_init__(self):
        for field in ("temperature", "hidden", "out"):
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
      ValueError: for an unknown name, a path that does not import, or a factory that returns something else.
    """
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "name"}
    given |= {"augment": augment, "axis_name": axis_name, "total_steps": total_steps}
    return call_with(named_factory(config.name, OBJECTIVES, "objective"), encoder, wanted=Objective, **given)
