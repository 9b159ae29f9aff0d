"""Optimisers by name, out of optax: schedules, clipping, and no decay on norms and biases."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import optax

OPTIMISERS = ("adam", "adamw", "lars", "sgd", "momentum")
SCHEDULES = ("constant", "cosine", "linear", "halving")


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """Which optimiser, and its schedule."""

    name: Literal["adam", "adamw", "lars", "sgd", "momentum"] = "adam"
    """adam and adamw (decoupled decay), lars (large batches), sgd, momentum (0.9, Nesterov)."""
    learning_rate: float = 1e-3
    """Peak rate."""
    weight_decay: float = 0.0
    """Strength; not applied to norms and biases. adam, adamw: decoupled. lars, sgd, momentum: added to the gradient."""
    schedule: Literal["constant", "cosine", "linear", "halving"] = "constant"
    """After the warm-up: constant, cosine or linear to zero at the last step, or halved every halve_every steps."""
    warmup_steps: int = 0
    """Steps of linear warm-up from zero."""
    halve_every: int = 2000
    """halving: steps between halvings."""
    clip_norm: float | None = None
    """Gradients longer than this (global norm) are scaled down to it."""

    def __post_init__(self):
        for field, known in (("name", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, field) not in known:
                what = "optimiser" if field == "name" else field
                raise ValueError(f"unknown {what} {getattr(self, field)!r}; there are: {', '.join(known)}")
        for field in ("learning_rate", "halve_every"):
            if not getattr(self, field) > 0:
                raise ValueError(f"OptimiserConfig.{field} must be positive, got {getattr(self, field)}")
        for field in ("weight_decay", "warmup_steps"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"OptimiserConfig.{field} must not be negative, got {getattr(self, field)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"OptimiserConfig.clip_norm must be positive, got {self.clip_norm}")


def make_optimiser(config: OptimiserConfig, total_steps: int) -> optax.GradientTransformation:
    """The optax optimiser that ``config`` describes.

    Norms' scales and biases get neither weight decay nor LARS' trust ratio.

    Args:
      config: see ``OptimiserConfig``.
      total_steps: where a cosine or linear schedule reaches zero.

    Raises:
      ValueError: when ``total_steps`` is not positive or the warm-up is not shorter than it.

    References:
      You et al. 2017, https://arxiv.org/abs/1708.03888 (LARS); SimCLR, section 2.2 and appendix B.6, for the masks;
      Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101 (AdamW).
    """
    rate = make_schedule(config, total_steps)
    decay = [optax.add_decayed_weights(config.weight_decay, mask=is_matrix)] if config.weight_decay else []
    clip = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    parts = {
        "adam": [optax.scale_by_adam(), *decay],
        "adamw": [optax.scale_by_adam(), *decay],
        "lars": [*decay, optax.masked(optax.scale_by_trust_ratio(trust_coefficient=0.001), is_matrix)],
        "sgd": decay,
        "momentum": [*decay, optax.trace(0.9, nesterov=True)],
    }[config.name]
    last = [optax.scale_by_learning_rate(rate)]
    if config.name == "lars":
        last.append(optax.trace(0.9))  # as in the original: the momentum accumulates steps already scaled by the rate
    return optax.chain(*clip, *parts, *last)


def make_schedule(config: OptimiserConfig, total_steps: int) -> Callable[[Any], Any]:
    """The learning rate as a function of the step (0 is the first)."""
    if total_steps <= 0:
        raise ValueError(f"total_steps must be positive, got {total_steps}")
    warmup, peak = config.warmup_steps, config.learning_rate
    if config.schedule in ("cosine", "linear") and warmup >= total_steps:
        raise ValueError(f"the warm-up of {warmup} steps must be shorter than the training of {total_steps} steps")
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, total_steps - warmup),
        "linear": lambda: optax.linear_schedule(peak, 0.0, total_steps - warmup),
        "halving": lambda: optax.exponential_decay(peak, config.halve_every, 0.5, staircase=True),
    }[config.schedule]()
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after


def is_matrix(params: Any) -> Any:
    """A tree of booleans: True for kernels, False for norms and biases (those of attention have an axis of heads)."""

    def kernel(path: tuple, leaf: jax.Array) -> bool:
        return leaf.ndim > 1 and getattr(path[-1] if path else None, "key", None) != "bias"

    return jax.tree_util.tree_map_with_path(kernel, params)
