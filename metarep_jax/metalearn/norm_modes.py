"""Whose statistics batch norm uses for an episode's queries. Few-shot numbers compare only where this is equal."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from metarep_jax.types import NormMode, batch_axis

ROWS_AT_ONCE = 512  # of "one_query", whose work is queries × (support + 1) rows; more overflow a CPU's cache

Forward = Callable[[PyTree, Any, bool], PyTree]  # (inputs [n, …], mask [n] or None, running) -> rows [n, …]


def query_forward(
    forward: Forward,
    support_inputs: PyTree,
    query_inputs: PyTree,
    mode: NormMode,
    *,
    support_mask: Bool[Array, " support"] | None = None,
    query_mask: Bool[Array, " query"] | None = None,
) -> PyTree[Shaped[Array, "query ..."]]:
    """``forward`` of the queries, normalised as ``mode`` says.

    - "transductive": by the statistics of the query batch: a query's answer depends on the other queries.
    - "support": by the statistics of the support set alone, at every layer.
    - "one_query": by those of the support set together with this one query (Reptile, section 6.1).
    - "running": by the averages kept in training.

    Args:
      forward: ``(inputs, mask, running) -> rows``. Rows whose mask is False must not enter statistics.
      support_inputs, query_inputs: [support, ...] and [query, ...].
      mode: see above.
      support_mask, query_mask: which rows count; None: all.

    Returns:
      One row a query. With "support" and "one_query" each is independent of the other queries.

    Raises:
      ValueError: for an unknown mode.

    References:
      Nichol et al. 2018, https://arxiv.org/abs/1803.02999; Bronskill et al. 2020, TaskNorm,
      https://arxiv.org/abs/2003.03284, compares these choices.
    """
    if mode == "running":
        return forward(query_inputs, query_mask, True)
    if mode == "transductive":
        return forward(query_inputs, query_mask, False)
    support = batch_axis(support_inputs)
    counts = jnp.ones(support, bool) if support_mask is None else support_mask
    if mode == "support":
        mask = jnp.concatenate([counts, jnp.zeros(batch_axis(query_inputs), bool)])
        rows = forward(_concatenate(support_inputs, query_inputs), mask, False)
        return jax.tree.map(lambda leaf: leaf[support:], rows)
    if mode != "one_query":
        raise ValueError(f"unknown norm mode {mode!r}; there are: transductive, support, one_query, running")
    mask = None if support_mask is None else jnp.concatenate([counts, jnp.ones(1, bool)])

    def alone(query: PyTree) -> PyTree:
        one = jax.tree.map(lambda leaf: leaf[None], query)
        rows = forward(_concatenate(support_inputs, one), mask, False)
        return jax.tree.map(lambda leaf: leaf[-1], rows)

    return jax.lax.map(alone, query_inputs, batch_size=max(1, ROWS_AT_ONCE // (support + 1)))


def _concatenate(first: PyTree, second: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
