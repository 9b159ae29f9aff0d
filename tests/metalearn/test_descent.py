"""Descent on minibatches: which rows each step takes, and what its optimisers do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import compiled, regression

from metarep_jax.metalearn.descent import descend, make_inner_optimiser, minibatches
from metarep_jax.types import Examples

EXAMPLES = regression().support  # 6 rows
START = {"w": jnp.array([[0.3], [-0.2]])}


def loss(weights, batch):
    return jnp.mean((batch.inputs @ weights["w"] - batch.label) ** 2)


gradient = compiled(jax.grad(loss))
batches = compiled(minibatches, static_argnums=1, static_argnames=("steps", "batch"))


def trained(which, steps, rate=0.1, batch=6, start=START, seed=0, **how):
    optimiser = make_inner_optimiser(which, rate)

    @compiled
    def train(start, how):
        return descend(
            loss, start, EXAMPLES, jax.random.key(seed), optimiser=optimiser, steps=steps, batch=batch, **how
        )

    return train(start, how)


def test_every_row_comes_once_before_any_comes_twice():
    rows = np.asarray(batches(jax.random.key(0), 6, steps=7, batch=4)).reshape(-1)
    for epoch in range(4):
        assert sorted(rows[6 * epoch : 6 * epoch + 6]) == list(range(6))
    assert len({tuple(rows[6 * epoch : 6 * epoch + 6]) for epoch in range(4)}) > 1
    larger = np.asarray(batches(jax.random.key(1), 3, steps=2, batch=5))
    assert np.bincount(larger.reshape(-1)).tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


def test_rows_that_do_not_count_never_come():
    mask = jnp.array([False, True, True, False, True])
    rows = np.asarray(batches(jax.random.key(0), 5, steps=4, batch=3, mask=mask))
    assert all(sorted(batch) == [1, 2, 4] for batch in rows)


def test_the_key_decides():
    one, same, other = (np.asarray(batches(jax.random.key(seed), 6, steps=3, batch=4)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_minibatches_need_a_row():
    with pytest.raises(ValueError, match="at least 1 row, got 2 steps of 0"):
        minibatches(jax.random.key(0), 5, steps=2, batch=0)


def test_whole_batches_by_gradient_descent_have_a_closed_form():
    """θ_k − θ* = (I − (2α/n) XᵀX)^k (θ_0 − θ*); the targets are linear, so θ* is what made them."""
    x, best = np.asarray(EXAMPLES.inputs, np.float64), np.array([[1.0], [-2.0]])
    power = np.linalg.matrix_power(np.eye(2) - 0.2 / 6 * x.T @ x, 4)
    found = trained("sgd", 4)
    np.testing.assert_allclose(found.weights["w"], best + power @ (np.asarray(START["w"]) - best), rtol=1e-4)
    assert np.asarray(found.losses)[0] == pytest.approx(float(compiled(loss)(START, EXAMPLES)), rel=1e-5)
    np.testing.assert_array_equal(trained("sgd", 0).weights["w"], START["w"])


def test_each_step_follows_its_own_minibatch():
    weights, *examples = map(np.asarray, (START["w"], EXAMPLES.inputs, EXAMPLES.label))
    for rows in np.asarray(batches(jax.random.key(0), 6, steps=3, batch=2)):
        weights = weights - 0.1 * np.asarray(
            gradient({"w": weights}, Examples(*(part[rows] for part in examples)))["w"]
        )
    np.testing.assert_allclose(trained("sgd", 3, batch=2).weights["w"], weights, rtol=1e-5)


def test_adam_without_beta1_moves_by_the_rate_along_the_sign_at_first():
    sign = np.sign(gradient(START, EXAMPLES)["w"])
    wanted = np.asarray(START["w"]) - 0.1 * sign
    np.testing.assert_allclose(trained("adam_beta1_0", 1).weights["w"], wanted, rtol=1e-4)


@pytest.mark.parametrize("which", ["momentum", "adam_beta1_0"])
def test_what_the_optimiser_remembers_can_be_handed_on(which):
    first = trained(which, 2)
    second = trained(which, 2, start=first.weights, seed=1, optimiser_state=first.optimiser_state)
    np.testing.assert_allclose(second.weights["w"], trained(which, 4).weights["w"], rtol=1e-5)


def test_any_optax_optimiser_will_do_and_unknown_names_are_refused():
    np.testing.assert_allclose(trained(optax.sgd, 2).weights["w"], trained("sgd", 2).weights["w"])
    with pytest.raises(ValueError, match="unknown inner optimiser 'adm'; there are: sgd, momentum, adam"):
        make_inner_optimiser("adm", 0.1)
