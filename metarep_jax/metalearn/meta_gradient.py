"""The meta-gradient: of the query loss after adaptation, as a mean over tasks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from metarep_jax.backend import target_backend
from metarep_jax.metalearn.tasks import check_trainable, run_task
from metarep_jax.types import Episode, Keys, MetaLearner, Metrics, batch_axis

TaskLoss = Callable[[Any, Any, Any, Any], tuple[Array, tuple[Any, Metrics]]]

ACCELERATOR_CHUNK = 32  # tasks at once: enough to fill a GPU with 5-way tasks of 28×28 images


def meta_gradient(
    learner: MetaLearner, chunk: int | None = None
) -> Callable[[Any, Any, Episode, Keys, Any], tuple[Any, Any, Metrics]]:
    """The default ``meta_grad``: the gradient of the mean over tasks of the query loss after adapting on the support.

    Args:
      learner: adapted and judged under its ``train_context``.
      chunk: tasks taken at once; None chooses for the backend.

    Raises:
      ValueError: for a baseline, which cannot be meta-trained.
    """
    check_trainable(learner)

    def task_loss(params: Any, state: Any, episode: Episode, key: Array) -> tuple[Array, tuple[Any, Metrics]]:
        outcome = run_task(learner, params, state, episode, key, learner.train_context)
        return outcome.loss, (outcome.state, outcome.metrics)

    def grads(params: Any, state: Any, episodes: Episode, keys: Keys, step: Any) -> tuple[Any, Any, Metrics]:
        del step
        return mean_over_tasks(task_loss, chunk)(params, state, episodes, keys.example)

    return grads


def mean_over_tasks(
    task_loss: TaskLoss, chunk: int | None = None
) -> Callable[[Any, Any, PyTree, Any], tuple[Any, Any, Metrics]]:
    """The gradient of the mean of ``task_loss`` over a batch of tasks, ``chunk`` tasks at a time.

    The chunk changes speed and memory and, beyond rounding, nothing else; it need not divide the number of tasks.
    Within a chunk tasks are mapped by ``vmap``; chunks follow one another in a ``scan`` that accumulates.

    Args:
      task_loss: ``(params, state, episode, key) -> loss, (state, metrics)`` of one task.
      chunk: at least 1; None means 1 on a CPU, where one task's arrays then stay in the cache, and 32 elsewhere.

    Returns:
      ``(params, state, episodes, keys) -> grads, state, metrics``, where episodes and keys have a leading task axis.
      The new state is the mean of the tasks' states, metrics the mean of theirs.

    Raises:
      ValueError: for a chunk below 1.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"tasks are taken at least 1 at a time, got chunk={chunk}")

    def mean(params: Any, state: Any, episodes: PyTree, keys: Any) -> tuple[Any, Any, Metrics]:
        tasks = batch_axis(episodes)
        size = min(chunk or (1 if target_backend() == "cpu" else ACCELERATOR_CHUNK), tasks)

        def one(params: Any, episode: PyTree, key: Array) -> tuple[Array, PyTree]:
            value, (moved, metrics) = task_loss(params, state, episode, key)
            change = jax.tree.map(jnp.subtract, moved, state)  # a state that stays then stays exactly
            return value / tasks, (change, metrics)

        def sums(params: Any, episodes: PyTree, keys: Any) -> tuple[Array, PyTree]:
            values, kept = jax.vmap(one, (None, 0, 0))(params, episodes, keys)
            return values.sum(), jax.tree.map(lambda leaf: leaf.sum(0), kept)

        def gradient(part: tuple[PyTree, Any]) -> tuple[Any, PyTree]:
            alone = batch_axis(part[0]) == 1
            part = jax.tree.map(lambda leaf: leaf[0], part) if alone else part
            return jax.grad(one if alone else sums, has_aux=True)(params, *part)

        given = (episodes, keys)
        if tasks == size:
            grads, (change, metrics) = gradient(given)
        else:
            whole = tasks - tasks % size
            parts = jax.tree.map(lambda leaf: leaf[:whole].reshape(whole // size, size, *leaf.shape[1:]), given)
            shapes = jax.eval_shape(gradient, jax.tree.map(lambda leaf: leaf[0], parts))
            total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            add = lambda total, part: (jax.tree.map(jnp.add, total, gradient(part)), None)  # noqa: E731
            total, _ = jax.lax.scan(add, total, parts)
            if whole < tasks:
                rest = gradient(jax.tree.map(lambda leaf: leaf[whole:], given))
                total = jax.tree.map(jnp.add, total, rest)
            grads, (change, metrics) = total
        # A counter that every task moves alike stays a whole number.
        state = jax.tree.map(lambda leaf, moved: leaf + (moved / tasks).astype(leaf.dtype), state, change)
        return grads, state, jax.tree.map(lambda leaf: leaf / tasks, metrics)

    return mean
