"""An objective on rows it has not seen, and what guessing by frequency reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data import pool_of_arrays
from metarep_jax.evaluate import held_out, unigram
from metarep_jax.types import Objective


def counting():
    """Loses the mean of a batch; is right about rows above 4, and random by its keys."""

    def loss(params, state, batch, keys, step):
        noise = jnp.mean(jax.vmap(jax.random.normal)(keys.example))
        metrics = {"row_accuracy": jnp.mean(batch["inputs"] > 4), "noise": noise}
        return params * batch["inputs"].mean(), (state, metrics)

    return Objective(init=lambda *_: (1.0, {}), loss=loss, features=lambda *_: jnp.zeros(0))


def test_every_row_counts_once_and_accuracies_are_in_percent():
    pool = pool_of_arrays(np.arange(10, dtype=np.float32), np.zeros(10, np.int32))
    found = held_out(counting(), 2.0, {}, pool, key=jax.random.key(0), batch=5)
    assert found["loss"].mean == pytest.approx(2 * 4.5) and found["loss"].n == 2
    assert found["row_accuracy"].mean == pytest.approx(50)
    again = held_out(counting(), 2.0, {}, pool, key=jax.random.key(0), batch=5)
    assert again == found
    whole = held_out(counting(), 2.0, {}, pool, key=jax.random.key(0), batch=64)
    assert whole["loss"].mean == pytest.approx(9) and whole["loss"].n == 1


def test_guessing_by_frequency_has_its_closed_form():
    train = jnp.array([[2, 5, 5, 5, 6, 3, 0]])
    test = jnp.array([[2, 5, 6, 6, 7, 3, 0]])
    found = unigram(train, test, vocabulary=8)
    assert found["masked_accuracy"].mean == pytest.approx(25)
    shares = np.array([4, 2, 2, 1]) / 7  # of 5, 6, 6 and the unseen 7, each counted once more
    assert found["loss"].mean == pytest.approx(-np.log(shares).mean())
