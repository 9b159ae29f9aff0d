"""Two-dimensional navigation: a point that does not see its goal has to find it by its rewards."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from metarep_jax.data.control.environments import Environment

Reward = Literal["distance", "squared_distance"]

FASTEST = 0.1  # the largest velocity in each of the two directions
REACHED = 0.01  # an episode ends this close to the goal


class NavigationParameters(NamedTuple):
    """A task."""

    goal: Float[Array, "2"]


class NavigationState(NamedTuple):
    """Where the point is."""

    position: Float[Array, "2"]


def navigation(*, reward: Reward = "distance", horizon: int = 100) -> Environment:
    """A point starts at the origin and moves by its action each step; its goal is uniform in [-0.5, 0.5]².

    The observation is the position. Each number of an action is clipped to ±0.1. An episode ends once the point is
    within 0.01 of the goal, or after ``horizon`` steps.

    Args:
      reward: after each step, the negative "distance" to the goal, as in the original's code, or the negative
        "squared_distance", as the paper says. The paper's numbers are of the former: before any update its policy,
        which does not know the goal, returns −40.4 (table 4); a point that rests at the origin returns −38.3 on
        average by distances and −16.7 by squares.
      horizon: the most steps of an episode.

    Raises:
      ValueError: for a horizon below 1.

    References:
      Finn et al. 2017, https://arxiv.org/abs/1703.03400, section 5.3.
      https://github.com/cbfinn/maml_rl, maml_examples/point_env_randgoal.py, where an episode ends when both
      coordinates are within 0.01.
    """
    cost = {"distance": jnp.sqrt, "squared_distance": lambda square: square}[reward]
    if horizon < 1:
        raise ValueError(f"an episode has at least 1 step, got horizon={horizon}")

    def sample(key: Key[Array, ""]) -> NavigationParameters:
        return NavigationParameters(jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5))

    def reset(key: Key[Array, ""], parameters: NavigationParameters) -> tuple[Float[Array, "2"], NavigationState]:
        del key
        origin = jnp.zeros_like(parameters.goal)
        return origin, NavigationState(origin)

    def step(
        key: Key[Array, ""], state: NavigationState, action: Float[Array, "2"], parameters: NavigationParameters
    ) -> tuple[Float[Array, "2"], NavigationState, Float[Array, ""], Bool[Array, ""]]:
        del key
        position = state.position + jnp.clip(action, -FASTEST, FASTEST)
        square = jnp.sum((position - parameters.goal) ** 2)
        return position, NavigationState(position), -cost(square), square < REACHED**2

    return Environment(sample, reset, step, action_size=2, action_limit=FASTEST, horizon=horizon)
