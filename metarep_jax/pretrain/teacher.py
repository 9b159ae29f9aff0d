"""The momentum teacher: an exponential moving average of the student, moved after the optimiser's update."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def first_teacher(params: Any, *names: str) -> Any:
    """The teacher before the first update: the student's modules of those names."""
    return {name: params[name] for name in names}


def with_teacher(init: Callable[..., tuple[Any, Any]], *names: str) -> Callable[..., tuple[Any, Any]]:
    """``init`` of an objective, whose state then holds the teacher of the modules of those names."""

    def started(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        params, state = init(key, batch, encoder_params)
        return params, {**state, "teacher": first_teacher(params, *names)}

    return started


def follow(momentum: float, total_steps: int | None = None) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """``after_update`` of an objective whose ``state["teacher"]`` follows ``params``: θ' ← m θ' + (1 − m) θ.

    It acts after the optimiser, once an update, however many micro-batches the gradient was accumulated over.

    Args:
      momentum: m, or where it starts from.
      total_steps: None: m stays; else it rises to 1 at that step, see ``momentum_at``.
    """

    def after_update(params: Any, state: Any, step: Any) -> tuple[Any, Any]:
        student = first_teacher(params, *state["teacher"])
        rate = 1.0 - momentum_at(step, momentum, total_steps)
        return params, {**state, "teacher": optax.incremental_update(student, state["teacher"], rate)}

    return after_update


def momentum_at(step: Any, momentum: float, total_steps: int | None) -> Float[Array, ""]:
    """1 − (1 − m)(cos(π step/total) + 1)/2: from ``momentum`` to 1, where it stays; constant without a total.

    References:
      Grill et al. 2020, https://arxiv.org/abs/2006.07733, section 3.3.
    """
    if total_steps is None:
        return jnp.asarray(momentum)
    progress = jnp.clip(step / total_steps, 0.0, 1.0)
    return 1 - (1 - momentum) * (jnp.cos(jnp.pi * progress) + 1) / 2
