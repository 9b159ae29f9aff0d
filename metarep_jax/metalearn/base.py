"""What meta-learners share: losses, and the meta-gradient as a mean over tasks."""

from collections.abc import Callable
from typing import Any, Literal, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree, Shaped

from metarep_jax.types import Episode, Examples, Keys, MetaLearner, Metrics, Outputs, batch_axis

TaskLoss = Callable[[Any, Any, Any, Any], tuple[Array, tuple[Any, Metrics]]]

ACCELERATOR_CHUNK = 32  # tasks at once: enough to fill a GPU with 5-way tasks of 28×28 images
UNREACHABLE = -1e9  # a logit whose probability is 0 in every precision, and whose gradient is a number
SUPPORT_LOSS = "support_loss/"  # metrics of the inner loop, by the steps taken before; train/divergence.py reads them


def masked_mean(rows: Float[Array, " n"], mask: Shaped[Array, " n"] | None) -> Float[Array, ""]:
    """The mean of the ``rows`` that ``mask`` keeps; 0 when it keeps none."""
    if mask is None:
        return rows.mean()
    return jnp.sum(jnp.where(mask, rows, 0)) / jnp.maximum(mask.sum(), 1)


def cross_entropy(outputs: Outputs, query: Examples) -> Float[Array, ""]:
    """Mean over rows of −log softmax(``outputs["logits"]`` [n, way])[label], in nats."""
    return masked_mean(optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], query.label), query.mask)


def squared_error(outputs: Outputs, query: Examples) -> Float[Array, ""]:
    """Mean over rows and target dimensions of (``outputs["mean"]`` − label)²; both [n, d]."""
    return masked_mean(jnp.mean((outputs["mean"] - query.label) ** 2, axis=-1), query.mask)


def accuracy(outputs: Outputs, query: Examples) -> Float[Array, ""]:
    """The share of rows whose largest logit is the label's, in [0, 1]."""
    right = jnp.argmax(outputs["logits"], -1) == query.label
    return masked_mean(right.astype(jnp.float32), query.mask)


def class_members(
    label: Int[Array, " n"], way: int, mask: Shaped[Array, " n"] | None = None, dtype: Any = jnp.float32
) -> Float[Array, "n way"]:
    """Labels as rows of one 1; rows that ``mask`` leaves out are 0."""
    member = jax.nn.one_hot(label, way, dtype=dtype)
    return member if mask is None else member * mask[:, None]


def seen_classes_only(logits: Float[Array, "n way"], support: Examples) -> Float[Array, "n way"]:
    """The logits, those of classes without a support example that counts lowered out of reach.

    Without a mask every class has examples, and nothing changes.
    """
    if support.mask is None:
        return logits
    member = class_members(support.label, logits.shape[-1], support.mask)
    return jnp.where(member.any(0), logits, UNREACHABLE)


def check_labels(episode: Episode, wanted: Literal["class numbers", "targets"], what: str) -> None:
    """Raises ValueError when a task's labels are of the other kind; ``what`` names the learner."""
    label = episode.support.label
    found = "class numbers" if jnp.issubdtype(label.dtype, jnp.integer) else "targets"
    if found != wanted:
        kinds = {"class numbers": "classification: class numbers [n]", "targets": "regression: float targets [n, d]"}
        raise ValueError(
            f"{what} takes {kinds[wanted]}; this task is {kinds[found]}, here {label.dtype} of shape {label.shape}"
        )


def check_masks(episodes: Episode) -> None:
    """Raises ValueError when a task [tasks, n] has queries of a class whose support is all masked.

    Arrays that are being traced hold nothing yet, and pass.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(episodes))
    if traced or episodes.support.mask is None or not jnp.issubdtype(episodes.query.label.dtype, jnp.integer):
        return
    label, mask = np.asarray(episodes.query.label), np.asarray(episodes.support.mask)
    asked = np.ones_like(label, bool) if episodes.query.mask is None else np.asarray(episodes.query.mask)
    for task, rows in enumerate(np.asarray(episodes.support.label)):
        if (lost := np.setdiff1d(label[task][asked[task]], rows[mask[task]])).size:
            names = ", ".join(map(str, lost))
            raise ValueError(f"task {task}: the mask leaves class {names} without support, but queries ask for it")


def meta_gradient(
    learner: MetaLearner, chunk: int | None = None
) -> Callable[[Any, Any, Episode, Keys, Any], tuple[Any, Any, Metrics]]:
    """The default ``meta_grad``: the gradient of the mean over tasks of the query loss after adapting on the support.

    Args:
      learner: adapted and judged under its ``train_context``.
      chunk: tasks taken at once; None chooses for the backend.
    """

    def task_loss(params: Any, state: Any, episode: Episode, key: Array) -> tuple[Array, tuple[Any, Metrics]]:
        support, query = episode
        task = learner.adapt(params, state, support, key, learner.train_context)
        mask = {} if query.mask is None else {"mask": query.mask}
        outputs = learner.predict(params, state, task, query.inputs, learner.train_context, **mask)
        value = learner.loss(outputs, query)
        return value, (outputs.get("state", state), task_metrics(task, outputs, query, value))

    def grads(params: Any, state: Any, episodes: Episode, keys: Keys, step: Any) -> tuple[Any, Any, Metrics]:
        del step
        return mean_over_tasks(task_loss, chunk)(params, state, episodes, keys.example)

    return grads


def refuse_meta_training(why: str, instead: str) -> Callable[..., NoReturn]:
    """The ``meta_grad`` of a baseline, which judges an encoder: ValueError with the reason, and what to do instead."""

    def meta_grad(*given: Any, **how: Any) -> NoReturn:
        raise ValueError(f"{why} and cannot be meta-trained. {instead}")

    return meta_grad


def task_metrics(task: Any, outputs: Outputs, query: Examples, loss: Array) -> Metrics:
    """What training tells of one task: the query loss, accuracy, and the support loss before each inner step."""
    metrics = {"loss": loss}
    if "logits" in outputs:
        metrics["accuracy"] = accuracy(outputs, query)
    if isinstance(task, dict):
        for step, value in enumerate(task.get("support_loss", ())):
            metrics[f"{SUPPORT_LOSS}{step}"] = value
    return metrics


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
        size = min(chunk or (1 if jax.default_backend() == "cpu" else ACCELERATOR_CHUNK), tasks)

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
