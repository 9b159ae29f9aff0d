"""Accuracy on many test episodes, with its interval."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from metarep_jax.data.tasks.episodes import sample_episodes
from metarep_jax.evaluate.intervals import Interval, interval
from metarep_jax.losses import accuracy
from metarep_jax.metalearn.tasks import run_task
from metarep_jax.types import Context, Episode, EpisodeSpec, MetaLearner, Pool

Mapper = Callable[..., Any]  # (fn, keys, *shared) -> fn(key, *shared) for every key; train.parallel.map_over_keys


def map_in_order(fn: Callable[..., Any], keys: Key[Array, " n"], *shared: Any, chunk: int = 1) -> Any:
    """``fn(key, *shared)`` for every key, on one device, ``chunk`` at a time."""
    return jax.jit(lambda keys, shared: jax.lax.map(lambda key: fn(key, *shared), keys, batch_size=chunk))(keys, shared)


def episode_accuracy(
    learner: MetaLearner, params: Any, state: Any, episode: Episode, key: Array, ctx: Context | None = None
) -> Array:
    """The share of queries that the learner, adapted on the support set, classifies correctly; in [0, 1]."""
    ctx = learner.test_context if ctx is None else ctx
    outcome = run_task(learner, params, state, episode, key, ctx)
    return accuracy(outcome.outputs["logits"], episode.query.label, episode.query.mask)


def few_shot_values(
    learner: MetaLearner,
    params: Any,
    state: Any,
    pool: Pool,
    spec: EpisodeSpec,
    *,
    key: Array,
    episodes: int = 2000,
    ctx: Context | None = None,
    mapper: Mapper = map_in_order,
) -> Float[np.ndarray, " episodes"]:
    """The accuracy in % on each of so many test episodes; see ``few_shot_accuracy``."""
    if episodes < 1:
        raise ValueError(f"few_shot_accuracy needs at least 1 episode, got {episodes}")
    values = mapper(_judge(learner, spec, ctx), jax.random.split(key, episodes), params, state, pool)
    return 100.0 * np.asarray(values)


def few_shot_accuracy(
    learner: MetaLearner,
    params: Any,
    state: Any,
    pool: Pool,
    spec: EpisodeSpec,
    *,
    key: Array,
    episodes: int = 2000,
    ctx: Context | None = None,
    mapper: Mapper = map_in_order,
) -> Interval:
    """Mean accuracy in % over test episodes, with its 95% interval.

    The episodes depend on ``key`` and ``spec`` only, so that learners are compared on the same ones.

    Args:
      learner, params, state: what is judged.
      pool: examples of the test classes.
      spec: way, shot, queries and rotations of a test episode.
      key: chooses the episodes.
      episodes: how many, at least 1.
      ctx: inner steps and batch-norm statistics; None means the learner's ``test_context``.
      mapper: spreads episodes over devices.

    Raises:
      ValueError: for fewer than one episode.
    """
    values = few_shot_values(learner, params, state, pool, spec, key=key, episodes=episodes, ctx=ctx, mapper=mapper)
    return interval(values)


@lru_cache(maxsize=256)
def _judge(learner: MetaLearner, spec: EpisodeSpec, ctx: Context | None) -> Callable[..., Array]:
    """One function a learner and spec, so that judging again does not compile again."""

    def accuracy(key: Array, params: Any, state: Any, pool: Pool) -> Array:
        episode_key, adapt_key = jax.random.split(key)
        return episode_accuracy(learner, params, state, sample_episodes(episode_key, pool, spec), adapt_key, ctx)

    return accuracy
