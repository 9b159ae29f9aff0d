"""Descent on minibatches: which rows each step takes, and what its optimisers do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import regression

from metarep_jax.metalearn.descent import descend, make_inner_optimiser, minibatches

EXAMPLES = regression().support  # 6 rows
START = {"w": jnp.array([[0.3], [-0.2]])}


def loss(weights, batch):
    return jnp.mean((batch.inputs @ weights["w"] - batch.label) ** 2)


def trained(which, steps, rate=0.1, **how):
    optimiser = make_inner_optimiser(which, rate)
    return descend(loss, START, EXAMPLES, jax.random.key(0), optimiser=optimiser, steps=steps, **{"batch": 6, **how})


def test_every_row_comes_once_before_any_comes_twice():
    rows = np.asarray(minibatches(jax.random.key(0), 6, steps=7, batch=4)).reshape(-1)
    for epoch in range(4):
        assert sorted(rows[6 * epoch : 6 * epoch + 6]) == list(range(6))
    assert len({tuple(rows[6 * epoch : 6 * epoch + 6]) for epoch in range(4)}) > 1
    larger = np.asarray(minibatches(jax.random.key(1), 3, steps=2, batch=5))
    assert np.bincount(larger.reshape(-1)).tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


def test_rows_that_do_not_count_never_come():
    mask = jnp.array([False, True, True, False, True])
    rows = np.asarray(minibatches(jax.random.key(0), 5, steps=4, batch=3, mask=mask))
    assert all(sorted(batch) == [1, 2, 4] for batch in rows)


def test_the_key_decides():
    one, same, other = (minibatches(jax.random.key(seed), 6, steps=3, batch=4) for seed in (0, 0, 1))
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
    assert float(found.losses[0]) == pytest.approx(float(loss(START, EXAMPLES)), rel=1e-5)
    np.testing.assert_array_equal(trained("sgd", 0).weights["w"], START["w"])


def test_each_step_follows_its_own_minibatch():
    rows = minibatches(jax.random.key(0), 6, steps=3, batch=2)
    weights = START["w"]
    for step in range(3):
        batch = jax.tree.map(lambda leaf, step=step: leaf[rows[step]], EXAMPLES)
        weights = weights - 0.1 * jax.grad(loss)({"w": weights}, batch)["w"]
    np.testing.assert_allclose(trained("sgd", 3, batch=2).weights["w"], weights, rtol=1e-5)


def test_adam_without_beta1_moves_by_the_rate_along_the_sign_at_first():
    sign = jnp.sign(jax.grad(loss)(START, EXAMPLES)["w"])
    np.testing.assert_allclose(trained("adam_beta1_0", 1).weights["w"], START["w"] - 0.1 * sign, rtol=1e-4)


@pytest.mark.parametrize("which", ["momentum", "adam_beta1_0"])
def test_what_the_optimiser_remembers_can_be_handed_on(which):
    first = trained(which, 2)
    optimiser = make_inner_optimiser(which, 0.1)
    second = descend(
        loss, first.weights, EXAMPLES, jax.random.key(1), optimiser=optimiser, steps=2, batch=6,
        optimiser_state=first.optimiser_state,
    )  # fmt: skip
    np.testing.assert_allclose(second.weights["w"], trained(which, 4).weights["w"], rtol=1e-5)


def test_any_optax_optimiser_will_do_and_unknown_names_are_refused():
    np.testing.assert_allclose(trained(optax.sgd, 2).weights["w"], trained("sgd", 2).weights["w"])
    with pytest.raises(ValueError, match="unknown inner optimiser 'adm'; there are: sgd, momentum, adam"):
        make_inner_optimiser("adm", 0.1)
