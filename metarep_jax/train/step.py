"""The update, as one pure per-device function, and many of them in one dispatch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import PyTree

from metarep_jax.train.parallel import mean_over_devices, shard_index, step_keys
from metarep_jax.types import Metrics, Trainable

Update = Callable[["TrainState", PyTree, "Roots", Any], tuple["TrainState", Metrics]]
BatchAt = Callable[[PyTree, Any, Any, Any, Any, Any], PyTree]  # (arrays, data root, turn, step, micro, part) -> batch


class TrainState(NamedTuple):
    """All that training changes: with the seed and the feed's position, all that a checkpoint needs."""

    params: Any
    state: Any
    opt_state: Any
    average: Any  # exponential moving average of params, or None
    step: Any  # int32: updates done


class Roots(NamedTuple):
    """Where a run's randomness comes from: three keys out of the seed."""

    init: Any
    data: Any
    step: Any


def make_roots(seeds: Sequence[int]) -> Roots:
    """Independent keys for initialisation, for drawing batches, and for the steps; [seeds] where there are several."""
    each = [Roots(*jax.random.split(jax.random.key(seed), 3)) for seed in seeds]
    return each[0] if len(each) == 1 else jax.tree.map(lambda *keys: jnp.stack(keys), *each)


def initial_state(
    trainable: Trainable, optimiser: optax.GradientTransformation, roots: Roots, batch: PyTree, average: bool
) -> TrainState:
    """The state before the first update; ``average``: with an average of the parameters."""
    params, state = trainable.init(roots.init, batch)
    return TrainState(params, state, optimiser.init(params), params if average else None, jnp.int32(0))


def make_update(
    trainable: Trainable,
    optimiser: optax.GradientTransformation,
    batch_at: BatchAt,
    *,
    size: int,
    shards: int,
    accumulate: int = 1,
    average_decay: float | None = None,
) -> Update:
    """One update, to be mapped over ``shards`` devices.

    The global batch of ``size`` is taken in ``accumulate`` micro-batches: micro-batch j holds its j-th rows, divided
    over the devices. Gradients and metrics are their means; ``state`` passes from one to the next; the optimiser and
    ``after_update`` act once.
    """

    def update(train: TrainState, arrays: PyTree, roots: Roots, turn: Any) -> tuple[TrainState, Metrics]:
        def micro_batch_grads(state: Any, micro: Any) -> tuple[Any, Any, Metrics]:
            part = micro * shards + shard_index()
            keys = step_keys(roots.step, train.step, size, part, shards * accumulate)
            batch = batch_at(arrays, roots.data, turn, train.step, micro, part)
            grads, state, metrics = trainable.grads(train.params, state, batch, keys, train.step)
            chex.assert_trees_all_equal_structs(grads, train.params)
            return grads, state, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), metrics)

        def add_micro_batch(carry: tuple, micro: Any) -> tuple[tuple, Metrics]:
            state, total = carry
            grads, state, metrics = micro_batch_grads(state, micro)
            return (state, jax.tree.map(lambda t, g: t + g / accumulate, total, grads)), metrics

        if accumulate == 1:
            grads, state, metrics = micro_batch_grads(train.state, jnp.int32(0))
        else:
            zeros = jax.tree.map(jnp.zeros_like, train.params)
            micros = jnp.arange(accumulate, dtype=jnp.int32)
            (state, grads), metrics = lax.scan(add_micro_batch, (train.state, zeros), micros)
            metrics = jax.tree.map(lambda leaf: leaf.mean(0), metrics)
        grads, state, metrics = mean_over_devices((grads, state, metrics))

        updates, opt_state = optimiser.update(grads, train.opt_state, train.params)
        params = optax.apply_updates(train.params, updates)
        params, state = trainable.after_update(params, state, train.step)
        average = train.average
        if average_decay is not None:
            average = optax.incremental_update(params, average, 1.0 - average_decay)
        metrics = {**metrics, "gradient_norm": optax.tree.norm(grads).astype(jnp.float32)}
        return TrainState(params, state, opt_state, average, train.step + 1), metrics

    return update


def repeat_update(update: Update, most: int, seeds: bool = False) -> Callable[..., tuple[TrainState, Metrics]]:
    """``(train, arrays, roots, count) -> train, metrics [most]``: ``count`` updates, at most ``most``, as one loop.

    The count is an argument of the compiled loop: dispatches of any length share one compilation. Rows of the metrics
    beyond the count are zero. With ``seeds``, ``train`` and ``roots`` have a leading seed axis, and metrics
    are [most, seeds].
    """
    each = jax.jit(jax.vmap(update, in_axes=(0, None, 0, None)) if seeds else update)  # jit: traced once, not twice

    def updates(train: TrainState, arrays: PyTree, roots: Roots, count: Any) -> tuple[TrainState, Metrics]:
        def body(turn: Any, carry: tuple) -> tuple:
            train, kept = carry
            train, metrics = each(train, arrays, roots, jnp.asarray(turn, jnp.int32))
            return train, jax.tree.map(lambda row, value: row.at[turn].set(value), kept, metrics)

        shapes = jax.eval_shape(each, train, arrays, roots, jnp.int32(0))[1]
        empty = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), shapes)
        return lax.fori_loop(0, count, body, (train, empty))

    return updates
