"""Judges of frozen features on a labelled split: a linear probe and weighted nearest neighbours."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metarep_jax.encoders.features import unit_rows
from metarep_jax.evaluate.intervals import Interval, interval
from metarep_jax.metalearn.base import seen_classes_only
from metarep_jax.metalearn.logistic import fit_logistic
from metarep_jax.types import Examples

ITERATIONS = 1000  # of L-BFGS, at most; a few hundred rows take 30 to 60
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # of the penalty, to choose from


def linear_probe(
    train: Float[Array, "n dim"],
    train_label: Int[Array, " n"],
    test: Float[Array, "m dim"],
    test_label: Int[Array, " m"],
    *,
    l2: float = 1.0,
    iterations: int = ITERATIONS,
) -> Interval:
    """Accuracy in % of multinomial logistic regression on standardised frozen features.

    Standardisation uses the training rows' mean and deviation. ``l2`` penalises the weights of Σ cross-entropy. L-BFGS
    stops where it has converged (``metalearn.logistic.fit_logistic``), or after ``iterations``.
    """
    return interval(probe_hits(train, train_label, test, test_label, l2=l2, iterations=iterations))


def probe_hits(
    train: Float[Array, "n dim"],
    train_label: Int[Array, " n"],
    test: Float[Array, "m dim"],
    test_label: Int[Array, " m"],
    *,
    l2: float = 1.0,
    iterations: int = ITERATIONS,
) -> Float[np.ndarray, " m"]:
    """100 for every test row that ``linear_probe`` is right about, and 0 for the others."""
    classes = int(max(train_label.max(), test_label.max())) + 1
    everyone = jnp.ones(len(train_label), bool)
    predicted = _predictions(train, train_label, everyone, test, l2, classes=classes, iterations=iterations)
    return 100.0 * np.asarray(predicted == test_label)


def chosen_l2(
    features: Float[Array, "n dim"],
    label: Int[Array, " n"],
    fold: Int[Array, " n"],
    *,
    strengths: Sequence[float] = STRENGTHS,
    iterations: int = ITERATIONS,
) -> float:
    """The penalty of a linear probe that is right most often about rows of folds left out, each of them once; of
    equals the strongest.

    Args:
      features, label: rows that the probe may be trained on.
      fold: 0 … folds-1 of each row.
      strengths: of the penalty, to choose from.
      iterations: of L-BFGS, at most.

    Raises:
      ValueError: for fewer than two folds.
    """
    folds = np.unique(np.asarray(fold))
    if len(folds) < 2:
        raise ValueError(f"chosen_l2 needs 2 folds or more, to leave one out, got {len(folds)}")
    classes, ordered = int(label.max()) + 1, jnp.asarray(sorted(strengths), features.dtype)
    predict = jax.vmap(partial(_predictions, classes=classes, iterations=iterations), (None, None, None, None, 0))
    hits = sum(
        np.sum(np.asarray(predict(features, label, fold != out, features, ordered) == label) & (fold == out), axis=1)
        for out in folds
    )
    best = np.flatnonzero(hits == np.max(hits))[-1]
    return float(sorted(strengths)[best])


@partial(jax.jit, static_argnames=("classes", "iterations"))
def _predictions(
    train: Float[Array, "n dim"],
    label: Int[Array, " n"],
    keep: Bool[Array, " n"],
    rows: Float[Array, "m dim"],
    l2: float | Float[Array, ""],
    *,
    classes: int,
    iterations: int,
) -> Int[Array, " m"]:
    """The classes of ``rows`` by a probe on those rows of ``train`` that are kept."""
    weight = keep[:, None] / keep.sum()
    mean = jnp.sum(train * weight, axis=0)
    deviation = jnp.sqrt(jnp.sum(jnp.square(train - mean) * weight, axis=0)) + 1e-6
    standard = (train - mean) / deviation
    weights, bias = fit_logistic(standard, label, classes, l2=l2, iterations=iterations, mask=keep)
    logits = (rows - mean) / deviation @ weights + bias
    return jnp.argmax(seen_classes_only(logits, Examples(standard, label, keep)), axis=-1)


def nearest_neighbours(
    train: Float[Array, "n dim"],
    train_label: Int[Array, " n"],
    test: Float[Array, "m dim"],
    test_label: Int[Array, " m"],
    *,
    k: int = 200,
    temperature: float = 0.07,
    batch: int = 512,
) -> Interval:
    """Accuracy in % of the k nearest training rows by cosine, each voting with weight exp(cosine / temperature).

    ``k`` is cut to the number of training rows. Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4.
    """
    if k < 1:
        raise ValueError(f"nearest_neighbours: k must be at least 1, got {k}")
    classes = int(max(train_label.max(), test_label.max())) + 1
    k = min(k, train.shape[0])
    train = unit_rows(train)

    @jax.jit
    def predict(rows: Array) -> Array:
        similarity, nearest = jax.lax.top_k(unit_rows(rows) @ train.T, k)
        votes = jax.nn.one_hot(train_label[nearest], classes) * jnp.exp((similarity - 1) / temperature)[..., None]
        return jnp.argmax(votes.sum(1), axis=-1)

    predicted = [np.asarray(predict(test[start : start + batch])) for start in range(0, test.shape[0], batch)]
    return interval(100.0 * (np.concatenate(predicted) == np.asarray(test_label)))
