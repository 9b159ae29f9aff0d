"""Descent on minibatches of a support set by an optax optimiser: adaptation that no meta-gradient passes through."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from metarep_jax.types import Examples

InnerOptimiser = Literal["sgd", "momentum", "adam", "adam_beta1_0"]
MakeOptimiser = Callable[[float], optax.GradientTransformation]  # learning rate -> optimiser

INNER_OPTIMISERS: dict[InnerOptimiser, MakeOptimiser] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "adam": optax.adam,
    "adam_beta1_0": partial(optax.adam, b1=0.0),  # without momentum: gradients scaled by their running size
}


class Descended(NamedTuple):
    """Where descent ended, what its optimiser remembers, and the minibatch loss that each step started from."""

    weights: PyTree
    optimiser_state: PyTree
    losses: Float[Array, " steps"]


def make_inner_optimiser(which: str | MakeOptimiser, learning_rate: float) -> optax.GradientTransformation:
    """The optimiser of that name, or that ``which`` makes.

    Raises:
      ValueError: for an unknown name.
    """
    if callable(which):
        return which(learning_rate)
    if which not in INNER_OPTIMISERS:
        raise ValueError(f"unknown inner optimiser {which!r}; there are: {', '.join(INNER_OPTIMISERS)}")
    return INNER_OPTIMISERS[which](learning_rate)


def descend(
    loss: Callable[[PyTree, Examples], Array],
    start: PyTree,
    examples: Examples,
    key: Key[Array, ""],
    *,
    optimiser: optax.GradientTransformation,
    steps: int,
    batch: int,
    optimiser_state: PyTree = None,
) -> Descended:
    """``steps`` of ``optimiser`` from ``start``, each on the gradient of ``loss`` on a minibatch of ``examples``.

    Args:
      loss: ``(weights, minibatch) -> scalar``.
      start: a tree of arrays.
      examples: [n, ...]; rows that their mask leaves out are never drawn.
      key: chooses the minibatches, as ``minibatches`` says.
      steps: 0 gives ``start`` back.
      batch: rows of a minibatch.
      optimiser_state: what the optimiser remembers of earlier descents; None: nothing.

    Raises:
      ValueError: for a negative number of steps or a batch below 1.
    """

    def step(carry: tuple[PyTree, PyTree], rows: Array) -> tuple[tuple[PyTree, PyTree], Array]:
        weights, memory = carry
        value, grads = jax.value_and_grad(loss)(weights, jax.tree.map(lambda leaf: leaf[rows], examples))
        updates, memory = optimiser.update(grads, memory, weights)
        return (optax.apply_updates(weights, updates), memory), value

    rows = minibatches(key, examples.label.shape[0], steps=steps, batch=batch, mask=examples.mask)
    memory = optimiser.init(start) if optimiser_state is None else optimiser_state
    (weights, memory), losses = lax.scan(step, (start, memory), rows)
    return Descended(weights, memory, losses)


def minibatches(
    key: Key[Array, ""], rows: int, *, steps: int, batch: int, mask: Bool[Array, " rows"] | None = None
) -> Int[Array, "steps batch"]:
    """Which rows each step takes: one random order of all rows after another, cut into pieces of ``batch``.

    Every row comes once before any comes twice, so that a batch may touch two orders, and one that is larger than the
    number of rows holds some of them twice. Rows that ``mask`` leaves out do not come (row numbers are arbitrary where
    it leaves out all).
    """
    if steps < 0 or batch < 1:
        raise ValueError(f"minibatches need 0 or more steps of at least 1 row, got {steps} steps of {batch}")
    place = jnp.arange(steps * batch)
    kept = jnp.ones(rows, bool) if mask is None else mask
    orders = max(-(-place.size // rows) if mask is None else place.size, 1)  # a mask may leave one row to an order

    def order(key: Array) -> Array:
        return jnp.argsort(jnp.where(kept, jax.random.uniform(key, (rows,)), 2.0))  # masked rows come last

    table = jax.vmap(order)(jax.random.split(key, orders))
    count = rows if mask is None else jnp.maximum(mask.sum(), 1)
    return table[place // count, place % count].reshape(steps, batch)
