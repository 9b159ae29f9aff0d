"""A learner on regression tasks, step by step: its error on many sinusoids, and its function on one."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metarep_jax.data.tasks.sinusoid_tasks import SinusoidSpec, sample_task
from metarep_jax.metalearn.base import squared_error
from metarep_jax.types import Examples, MetaLearner


class Regressor(NamedTuple):
    """A learner with its trained parameters."""

    learner: MetaLearner
    params: Any
    state: Any


def errors_by_step(
    model: Regressor, spec: SinusoidSpec, key: Key[Array, ""], *, tasks: int, steps: Sequence[int]
) -> Float[Array, "tasks steps"]:
    """The squared error on each test task's queries after each number of inner ``steps``.

    Args:
      model: what is judged.
      spec: of the tasks.
      key: which tasks; the same key gives the same ones to every model.
      tasks: how many.
      steps: numbers of inner steps.
    """

    def errors(key: Array, params: Any, state: Any) -> Array:
        task_key, adapt_key = jax.random.split(key)
        episode = sample_task(task_key, spec)
        one = Regressor(model.learner, params, state)
        means = predictions_by_step(one, episode.support, episode.query, adapt_key, steps)
        return jnp.stack([squared_error({"mean": mean}, episode.query) for mean in means.values()])

    return jax.jit(jax.vmap(errors, (0, None, None)))(jax.random.split(key, tasks), model.params, model.state)


def predictions_by_step(
    model: Regressor, support: Examples, query: Examples, key: Key[Array, ""], steps: Sequence[int]
) -> dict[int, Float[Array, "n 1"]]:
    """What the model says of the queries after each number of inner steps on the support set."""
    learner, params, state = model

    def predicted(count: int) -> Array:
        ctx = dataclasses.replace(learner.test_context, inner_steps=count)
        return learner.predict(params, state, learner.adapt(params, state, support, key, ctx), query.inputs, ctx)[
            "mean"
        ]

    return {count: predicted(count) for count in steps}
