"""A trained objective judged by itself on held-out rows: its loss and bounds, its pictures, its guesses.

What an objective can do beside its loss is said by its own ``judge`` (``types.Judge``); nothing here knows names.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Shaped

from metarep_jax.data.text.tokenizer import Tokenizer
from metarep_jax.evaluate.held_out import held_out, unigram
from metarep_jax.evaluate.hidden_words import HiddenWord, guess_hidden_words
from metarep_jax.evaluate.intervals import Interval, interval
from metarep_jax.pretrain import is_judged_alone
from metarep_jax.types import Judge, Objective, Pool

Rows = dict[str, dict[str, Interval]]  # columns by row
BOUND_ROWS, BOUND_BATCH = 2000, 100
IMAGES, PAIRS, STEPS, SAMPLES = 12, 6, 8, 60
ROOT = {"untrained": 1, "held_out": 11, "reconstruct": 12, "sample": 13, "bounds": 1000}  # folded into the key


class Interpolations(NamedTuple):
    """Images [n, h, w, c], other images, and ``between`` [n, steps, h, w, c] from the ones to the others."""

    first: np.ndarray
    between: np.ndarray
    second: np.ndarray


class Pictures(NamedTuple):
    """Images by a generative objective, pixels in [0, 1]; what it does not give is None."""

    reconstructions: dict[str, np.ndarray] | None = None  # rows of images by name, the original first
    interpolations: Interpolations | None = None
    samples: np.ndarray | None = None  # [n, h, w, c]


class ObjectiveReport(NamedTuple):
    """What an objective is worth by itself."""

    rows: Rows
    pictures: Pictures
    words: list[HiddenWord]


def judge_objective(
    objective: Objective,
    params: Any,
    state: Any,
    *,
    train: Pool,
    test: Pool,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
    batch: int = 64,
) -> ObjectiveReport:
    """Everything below at once.

    Args:
      objective: made without ``axis_name``.
      params, state: trained.
      train: rows that were trained on: the untrained objective starts from their shapes, ``unigram`` from their tokens.
      test: rows that were not.
      seed: all randomness follows from it.
      tokenizer: of text, else None.
      batch: rows at once of the loss. Give the training's for objectives of views: a queue, or prototypes, fit that; of
        fewer rows then a part that divides it is taken.
    """
    key, vocabulary = jax.random.key(seed), 0 if tokenizer is None else tokenizer.size
    rows = judge_rows(objective, params, state, train=train, test=test, key=key, vocabulary=vocabulary, batch=batch)
    pictures = draw_pictures(objective, params, state, test, key=key)
    if tokenizer is None:
        return ObjectiveReport(rows, pictures, [])
    return ObjectiveReport(
        rows, pictures, guess_hidden_words(objective, params, state, np.asarray(test.inputs), tokenizer, seed=seed)
    )


def judge_rows(
    objective: Objective,
    params: Any,
    state: Any,
    *,
    train: Pool,
    test: Pool,
    key: Key[Array, ""],
    vocabulary: int = 0,
    batch: int = 64,
) -> Rows:
    """The loss, metrics and bounds of the rows "untrained" and "pretrained"; for text also "unigram".

    Norms use each batch's statistics in the loss, running averages in bounds.

    Args:
      objective, params, state, train, test, batch: as in ``judge_objective``.
      key: of everything random.
      vocabulary: number of tokens of text; with it, an objective that guesses tokens is compared with their frequency.
    """
    judge = objective.judge or Judge()
    if not is_judged_alone(objective):
        batch = dividing_batch(batch, min(train.label.shape[0], test.label.shape[0]))
    size = min(batch, train.label.shape[0])
    start: Any = jax.jit(objective.init)(
        jax.random.fold_in(key, ROOT["untrained"]), {"inputs": train.inputs[:size], "label": train.label[:size]}
    )
    models: dict[str, tuple[Any, Any]] = {"untrained": start, "pretrained": (params, state)}
    rows: Rows = {}
    for name, model in models.items():
        rows[name] = held_out(objective, *model, test, key=jax.random.fold_in(key, ROOT["held_out"]), batch=batch)
    if judge.guess is not None and vocabulary:
        rows["unigram"] = unigram(train.inputs, test.inputs, vocabulary)
    if judge.bounds is not None:
        bounds = jax.jit(judge.bounds)
        for name, (own, moved) in models.items():
            rows[name] |= mean_bounds(bounds, own, moved, test.inputs, key)
    return rows


def dividing_batch(batch: int, rows: int) -> int:
    """The largest batch of at most ``rows`` that divides ``batch``: whatever fits that batch fits it too."""
    return next(size for size in range(min(batch, rows), 0, -1) if batch % size == 0)


def mean_bounds(bounds: Any, params: Any, state: Any, inputs: Shaped[Array, "n ..."], key: Any) -> dict[str, Interval]:
    """Means of ``bounds`` (``Judge.bounds``, compiled) over at most ``BOUND_ROWS`` of the inputs, spread over all."""
    count = min(BOUND_ROWS, len(inputs))
    inputs = inputs[np.arange(count) * len(inputs) // count]
    size = min(BOUND_BATCH, count)
    parts = inputs[: count // size * size].reshape(-1, size, *inputs.shape[1:])
    values = [bounds(params, state, part, jax.random.fold_in(key, ROOT["bounds"] + i)) for i, part in enumerate(parts)]
    return {name: interval(np.concatenate([each[name] for each in values])) for name in values[0]}


def draw_pictures(objective: Objective, params: Any, state: Any, pool: Pool, *, key: Key[Array, ""]) -> Pictures:
    """Reconstructions, interpolations and samples, of one image of each of several classes.

    Args:
      objective, params, state: as in ``judge_objective``; inputs that are no images give no pictures.
      pool: images that were not trained on.
      key: of everything random.
    """
    judge = objective.judge or Judge()
    if pool.inputs.ndim != 4:
        return Pictures()
    images = one_of_each_class(pool)
    keys = jax.random.split(jax.random.fold_in(key, ROOT["reconstruct"]), len(images))
    reconstructions = interpolations = samples = None
    if judge.reconstruct is not None:
        reconstructions = reconstruct_in_order(judge.reconstruct, params, state, images, keys)
    if judge.interpolate is not None and (pairs := min(PAIRS, len(images) // 2)):
        first, second = images[:pairs], images[pairs : 2 * pairs]
        between = jax.jit(judge.interpolate, static_argnames="steps")(params, state, first, second, steps=STEPS)
        interpolations = Interpolations(*map(np.asarray, (first, between, second)))
    if judge.sample is not None:
        sample = jax.jit(judge.sample, static_argnames=("count", "shape"))
        sample_key = jax.random.fold_in(key, ROOT["sample"])
        samples = np.asarray(sample(params, state, sample_key, count=SAMPLES, shape=images.shape[1:]))
    return Pictures(reconstructions, interpolations, samples)


def reconstruct_in_order(reconstruct: Any, *args: Any) -> dict[str, np.ndarray]:
    """``reconstruct(*args)``, compiled, in its own order: ``jit`` sorts the names of dicts."""
    names: list[str] = []

    def listed(*args: Any) -> list[Array]:
        rows = reconstruct(*args)
        names.extend(rows)
        return list(rows.values())

    arrays = [np.asarray(array) for array in jax.jit(listed)(*args)]  # names are known once it is traced
    return dict(zip(names, arrays, strict=True))


def one_of_each_class(pool: Pool) -> Array:
    """One image of each of at most ``IMAGES`` classes, spread over the classes in their order."""
    classes = np.linspace(0, pool.count.shape[0] - 1, min(IMAGES, pool.count.shape[0])).astype(int)
    return jnp.asarray(pool.inputs)[pool.members[classes, 0]]
