"""The return of a policy that adapts to a task, update by update."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metarep_jax.data.control.environments import Environment, task_of
from metarep_jax.types import EpisodeSpec, MetaLearner


def returns_by_updates(
    learner: MetaLearner,
    params: Any,
    state: Any,
    environment: Environment,
    key: Key[Array, ""],
    *,
    updates: int = 3,
    trajectories: int = 40,
) -> Float[Array, " columns"]:
    """The mean return on one task after 0 to ``updates`` updates, each made from so many ``trajectories``.

    The return after k updates is that of the trajectories which the next update is made from, after the last one that
    of as many for this purpose: fresh ones each time.

    Args:
      learner, params, state: ``learner`` as ``metalearn.policy_gradient`` makes it.
      environment, key: the task is drawn from the environment by the key, which also gives all trajectories.
      updates: at least 0.
      trajectories: at least 1.
    """
    task_key, adapt_key = jax.random.split(key)
    spec = EpisodeSpec(way=1, shot=trajectories, query=trajectories)
    support, query = task_of(environment.sample(task_key), spec)
    ctx = dataclasses.replace(learner.test_context, inner_steps=updates)
    task = learner.adapt(params, state, support, adapt_key, ctx)
    last = learner.predict(params, state, task, query.inputs, ctx)
    return jnp.append(task["support_return"], last["return"].mean())
