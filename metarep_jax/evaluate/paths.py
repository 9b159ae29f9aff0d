"""Where a policy goes: positions of a point in some episodes, before or after it has adapted."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from metarep_jax.data.control.environments import Trajectories, task_of
from metarep_jax.data.control.navigation_environment import FASTEST, NavigationParameters
from metarep_jax.types import EpisodeSpec, MetaLearner


def paths_to_goals(
    learner: MetaLearner,
    params: Any,
    state: Any,
    goals: Float[Array, "k 2"],
    key: Key[Array, ""],
    *,
    updates: int,
    trajectories: int,
    episodes: int,
) -> list[list[Float[np.ndarray, "_ 2"]]]:
    """Positions in some episodes towards each goal of point navigation, from the start on.

    Args:
      learner, params, state: ``learner`` as ``metalearn.policy_gradient`` makes it.
      goals: where to go.
      key: gives all trajectories.
      updates: by policy gradient, before the episodes.
      trajectories: that each update is made from.
      episodes: whose positions are returned.
    """
    ctx = dataclasses.replace(learner.test_context, inner_steps=updates)
    spec = EpisodeSpec(way=1, shot=trajectories, query=episodes)

    def one(goal_and_key: tuple[Array, Array]) -> Trajectories:
        goal, key = goal_and_key
        support, query = task_of(NavigationParameters(goal), spec)
        task = learner.adapt(params, state, support, key, ctx)
        return learner.predict(params, state, task, query.inputs, ctx)["trajectories"]

    every = jax.jit(lambda *each: jax.lax.map(one, each))(goals, jax.random.split(key, len(goals)))
    seen = jax.tree.map(np.asarray, every)
    ends = seen.observation + np.clip(seen.action, -FASTEST, FASTEST)
    return [
        [np.concatenate([np.zeros((1, 2)), path[mask]]) for path, mask in zip(paths, masks, strict=True)]
        for paths, masks in zip(ends, seen.mask, strict=True)
    ]
