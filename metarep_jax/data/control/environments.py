"""Reinforcement learning's side of a task: environments as pure functions, trajectories, and feeds of tasks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key, PyTree

from metarep_jax.data.feeds import shard_keys
from metarep_jax.types import Episode, EpisodeSpec, Examples, Feed, batch_axis

Policy = Callable[[Key[Array, ""], Float[Array, "n o"]], Float[Array, "n a"]]


class Environment(NamedTuple):
    """A family of Markov decision processes; a task is a draw of ``parameters``. Pure functions, key first.

    Episodes take at most ``horizon`` steps of ``action_size`` numbers, each of which counts within ±``action_limit``.
    """

    sample: Callable[[Key[Array, ""]], PyTree]  # (key) -> parameters of one task
    reset: Callable[[Key[Array, ""], PyTree], tuple[Array, PyTree]]  # (key, parameters) -> observation [o], state
    step: Callable[..., tuple[Array, PyTree, Array, Array]]
    # (key, state, action [a], parameters) -> observation [o], state, reward, done
    action_size: int
    action_limit: float
    horizon: int


class Trajectories(NamedTuple):
    """What happened in ``n`` episodes; ``mask`` is True up to and including the step that ended an episode.

    What comes after it means nothing, except that rewards are 0.
    """

    observation: Float[Array, "n horizon o"]  # before the action
    action: Float[Array, "n horizon a"]
    reward: Float[Array, "n horizon"]  # of the action
    mask: Bool[Array, "n horizon"]


def rollout(key: Key[Array, ""], environment: Environment, policy: Policy, parameters: PyTree) -> Trajectories:
    """Runs ``policy`` for one episode in each of ``n`` environments, side by side.

    Args:
      key: of all randomness of the environments and of the policy.
      environment: its ``horizon`` is the length of the trajectories.
      policy: ``(key, observations [n, o]) -> actions [n, a]``.
      parameters: one environment a row: leaves [n, ...].
    """
    n = batch_axis(parameters)
    start_key, steps_key = jax.random.split(key)
    observation, state = jax.vmap(environment.reset)(jax.random.split(start_key, n), parameters)

    def step(carry: tuple, key: Key[Array, ""]) -> tuple[tuple, Trajectories]:
        observation, state, running = carry
        policy_key, environment_key = jax.random.split(key)
        action = policy(policy_key, observation)
        following, state, reward, done = jax.vmap(environment.step)(
            jax.random.split(environment_key, n), state, action, parameters
        )
        seen = Trajectories(observation, action, jnp.where(running, reward, 0), running)
        return (following, state, running & ~done), seen

    start = (observation, state, jnp.ones(n, bool))
    _, by_step = lax.scan(step, start, jax.random.split(steps_key, environment.horizon))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), by_step)


def environment_feed(environment: Environment, spec: EpisodeSpec, tasks: int) -> Feed:
    """Batches of ``tasks`` tasks, drawn anew every step.

    ``spec.shot`` trajectories are collected for each update of a task, ``spec.query`` afterwards: a task's ``inputs``
    are the environment's parameters, one row a trajectory, and its labels are empty, [rows, 0], since rewards take
    their place.

    Raises:
      ValueError: for fewer than one task, and for a ``spec`` of several classes.
    """
    if tasks < 1:
        raise ValueError(f"environment_feed: tasks must be at least 1, got {tasks}")
    if spec.way != 1:
        raise ValueError(f"environment_feed: a task is one environment, EpisodeSpec.way must be 1, got {spec.way}")

    def draw(pool: PyTree, root: Key[Array, ""], step: Any, shard: Any, shards: int) -> Episode:
        del pool
        keys = shard_keys(root, 0, step, tasks, shard, shards)
        return jax.vmap(lambda key: task_of(environment.sample(key), spec))(keys)

    return Feed(tasks, jnp.zeros(()), draw)  # the pool holds nothing: tasks are made, not drawn from data


def task_of(parameters: PyTree, spec: EpisodeSpec) -> Episode:
    """The task of one environment: its ``parameters``, a row a trajectory."""

    def rows(count: int) -> Examples:
        return Examples(
            jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), parameters), jnp.zeros((count, 0))
        )

    return Episode(rows(spec.shot), rows(spec.query))
