"""Optimisers by name, out of optax: schedules, clipping, and no decay on norms and biases."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from metarep_jax.typed_settings import Settings

OPTIMISERS = ("adam", "adamw", "lars", "sgd", "momentum")
SCHEDULES = ("constant", "cosine", "linear", "halving")
LARS_NORMS = ("sum", "separate")
TRUST = 0.001  # LARS: You et al. 2017, section 5


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Which optimiser, and its schedule."""

    name: Literal["adam", "adamw", "lars", "sgd", "momentum"] = "adam"
    """adam and adamw (decoupled decay), lars (large batches), sgd, momentum (0.9, Nesterov)."""
    learning_rate: float = 1e-3
    """Peak rate."""
    weight_decay: float = 0.0
    """Strength; not applied to norms and biases. adam, adamw: decoupled. lars, sgd, momentum: added to the gradient."""
    schedule: Literal["constant", "cosine", "linear", "halving"] = "constant"
    """After the warm-up: constant, cosine or linear to zero at the last step, or halving (see halve-every)."""
    warmup_steps: int = 0
    """Steps of linear warm-up from zero; fewer than the training has."""
    halve_every: int = 2000
    """halving: steps between halvings."""
    clip_norm: float | None = None
    """Gradients longer than this (global norm) are scaled down to it."""
    lars_norm: Literal["sum", "separate"] = "sum"
    """lars: what a kernel's norm is divided by: that of gradient plus decay (sum, as in Barlow Twins' code), or the sum
    of both norms (separate, as in the paper)."""

    def __post_init__(self):
        super().__post_init__()
        for field, known in (("name", OPTIMISERS), ("schedule", SCHEDULES), ("lars_norm", LARS_NORMS)):
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


def make_optimiser(
    config: OptimiserConfig, schedule_steps: int, total_steps: int | None = None
) -> optax.GradientTransformation:
    """The optax optimiser that ``config`` describes.

    Norms' scales and biases get neither weight decay nor LARS' trust ratio.

    Args:
      config: see ``OptimiserConfig``.
      schedule_steps, total_steps: see ``make_schedule``.

    Raises:
      ValueError: when ``schedule_steps`` is not positive or the warm-up is not shorter than it.

    References:
      You et al. 2017, https://arxiv.org/abs/1708.03888 (LARS); SimCLR, section 2.2 and appendix B.6, for the masks;
      Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101 (AdamW).
    """
    rate = make_schedule(config, schedule_steps, total_steps)
    decay = [optax.add_decayed_weights(config.weight_decay, mask=is_matrix)] if config.weight_decay else []
    clip = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    if config.lars_norm == "separate":
        lars = [optax.masked(scale_by_separate_norms(config.weight_decay), is_matrix)]
    else:
        lars = [*decay, optax.masked(optax.scale_by_trust_ratio(trust_coefficient=TRUST), is_matrix)]
    parts = {
        "adam": [optax.scale_by_adam(), *decay],
        "adamw": [optax.scale_by_adam(), *decay],
        "lars": lars,
        "sgd": decay,
        "momentum": [*decay, optax.trace(0.9, nesterov=True)],
    }[config.name]
    last = [optax.scale_by_learning_rate(rate)]
    if config.name == "lars":
        last.append(optax.trace(0.9))  # as in the original: the momentum accumulates steps already scaled by the rate
    return optax.chain(*clip, *parts, *last)


def scale_by_separate_norms(weight_decay: float, trust: float = TRUST) -> optax.GradientTransformation:
    """LARS' trust ratio as in the paper: η‖w‖ / (‖g‖ + β‖w‖), times g + βw, for every leaf.

    A leaf whose norm or gradient is zero keeps the ratio 1, as with ``optax.scale_by_trust_ratio``.

    Args:
      weight_decay: β.
      trust: η.

    References:
      You et al. 2017, https://arxiv.org/abs/1708.03888, equation 6.
    """

    def scale(grad: jax.Array, weight: jax.Array) -> jax.Array:
        grad_norm, norm = jnp.linalg.norm(grad), jnp.linalg.norm(weight)
        positive = (norm > 0) & (grad_norm > 0)
        ratio = jnp.where(positive, trust * norm / jnp.where(positive, grad_norm + weight_decay * norm, 1.0), 1.0)
        return ratio * (grad + weight_decay * weight)

    return optax.stateless(lambda grads, params: jax.tree.map(scale, grads, params))


def make_schedule(config: OptimiserConfig, schedule_steps: int, total_steps: int | None = None) -> Callable[[Any], Any]:
    """The learning rate as a function of the step (0 is the first).

    Args:
      config: see ``OptimiserConfig``.
      schedule_steps: where a cosine or linear schedule reaches zero.
      total_steps: of the training; None: as many. With more, the rate stays after ``schedule_steps`` what it is then.

    Raises:
      ValueError: when ``schedule_steps`` is not positive or the warm-up is not shorter than it.
    """
    if schedule_steps <= 0:
        raise ValueError(f"total_steps must be positive, got {schedule_steps}")
    warmup, peak = config.warmup_steps, config.learning_rate
    if warmup >= schedule_steps:
        raise ValueError(
            f"the warm-up of {warmup} steps must be shorter than the training of {schedule_steps} steps; lower "
            "--….optimiser.warmup-steps, or raise --….train.steps"
        )
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, schedule_steps - warmup),
        "linear": lambda: optax.linear_schedule(peak, 0.0, schedule_steps - warmup),
        "halving": lambda: optax.exponential_decay(peak, config.halve_every, 0.5, staircase=True),
    }[config.schedule]()
    rate = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after
    # The other schedules stay as they are by themselves.
    if config.schedule == "halving" and total_steps is not None and total_steps > schedule_steps:
        return lambda step: rate(jnp.minimum(step, schedule_steps))
    return rate


def is_matrix(params: Any) -> Any:
    """A tree of booleans: True for kernels, False for norms and biases (those of attention have an axis of heads)."""

    def kernel(path: tuple, leaf: jax.Array) -> bool:
        return leaf.ndim > 1 and getattr(path[-1] if path else None, "key", None) != "bias"

    return jax.tree_util.tree_map_with_path(kernel, params)
