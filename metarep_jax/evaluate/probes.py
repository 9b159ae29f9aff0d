"""Judges of frozen features on a labelled split: a linear probe and weighted nearest neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metarep_jax.encoders.features import unit_rows
from metarep_jax.evaluate.intervals import Interval, interval
from metarep_jax.metalearn.logistic import fit_logistic


def linear_probe(
    train: Float[Array, "n dim"],
    train_label: Int[Array, " n"],
    test: Float[Array, "m dim"],
    test_label: Int[Array, " m"],
    *,
    l2: float = 1.0,
    iterations: int = 100,
) -> Interval:
    """Accuracy in % of multinomial logistic regression on standardised frozen features, last iterate.

    Standardisation uses the training rows' mean and deviation. ``l2`` penalises the weights of Σ cross-entropy.
    """
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    classes = int(max(train_label.max(), test_label.max())) + 1
    fit = jax.jit(fit_logistic, static_argnames=("classes", "l2", "iterations"))
    weights, bias = fit((train - mean) / deviation, train_label, classes, l2=l2, iterations=iterations)
    predicted = jnp.argmax((test - mean) / deviation @ weights + bias, axis=-1)
    return interval(100.0 * np.asarray(predicted == test_label))


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
