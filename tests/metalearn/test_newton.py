"""LR-D2: Newton's method ends where the gradient is zero, where L-BFGS ends too, and its meta-gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import check_meta_gradient, classification, compiled, regression

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.logistic import fit_logistic
from metarep_jax.metalearn.newton import fit_newton, newton_logistic

fit = compiled(fit_newton, static_argnums=(2, 3))


def problem(dim, dtype=np.float32, n=9):
    rows = np.random.default_rng(0).standard_normal((n, dim))
    return rows.astype(dtype), np.eye(3, dtype=dtype)[np.arange(n) % 3]


@pytest.mark.parametrize("dim", [4, 20])
def test_at_convergence_the_gradient_of_every_class_against_the_rest_is_zero(dim):
    with jax.enable_x64(True):
        x, y = problem(dim, np.float64)
        weights = np.asarray(fit(x, y, 0.4, 12))
    gradient = x.T @ (1 / (1 + np.exp(-x @ weights)) - y) + 0.4 * weights
    assert np.abs(weights).max() > 0.1
    np.testing.assert_allclose(gradient, 0, atol=1e-10)


def test_the_first_step_is_that_from_zero():
    """(XᵀX / 4 + λI) w = Xᵀ(y − ½)."""
    x, y = problem(4)
    wanted = np.linalg.solve(x.T @ x / 4 + 0.4 * np.eye(4), x.T @ (y - 0.5))
    np.testing.assert_allclose(fit(x, y, 0.4, 1), wanted, rtol=1e-4)


def test_it_ends_where_logistic_regression_of_each_class_against_the_rest_ends():
    """Two classes' softmax with penalty l2 on both columns is one class's sigmoid with penalty l2 / 2 on their
    difference; rows that are there with both signs, and both labels, leave no intercept."""
    rows, targets = problem(4)
    ours = np.asarray(fit(rows, targets, 0.4, 12))
    both = np.concatenate([rows, -rows])
    for column in range(3):
        label = targets[:, column].astype(np.int32)
        weights, bias = map(
            np.asarray, fit_logistic(both, np.concatenate([label, 1 - label]), 2, l2=1.6, iterations=40)
        )
        np.testing.assert_allclose(bias, 0, atol=1e-3)
        np.testing.assert_allclose(weights[:, 1] - weights[:, 0], ours[:, column], atol=3e-3)


def test_rows_of_zeros_say_nothing_and_far_rows_keep_it_finite():
    rows, targets = problem(4)
    padded = (np.pad(part, ((0, 2), (0, 0))) for part in (rows, targets))
    np.testing.assert_allclose(fit(*padded, 0.4, 5), fit(rows, targets, 0.4, 5), rtol=1e-4, atol=1e-5)
    value_and_slope = compiled(jax.value_and_grad(lambda rows, targets: fit_newton(rows, targets, 1e-2, 12).sum()))
    assert all(np.isfinite(part).all() for part in value_and_slope(100 * rows, targets))


def test_the_meta_gradient_is_the_finite_difference_in_float64():
    learner = newton_logistic(MLP(widths=(6, 8), dtype=jnp.float64), way=3, iterations=3)
    check_meta_gradient(learner, classification())


def test_regression_and_no_steps_are_refused():
    with pytest.raises(ValueError, match=r"LR-D2\) takes classification"):
        newton_logistic(Identity(), way=1).init(jax.random.key(0), regression())
    with pytest.raises(ValueError, match="at least 1 Newton step, got iterations=0"):
        newton_logistic(Identity(), way=3, iterations=0)
