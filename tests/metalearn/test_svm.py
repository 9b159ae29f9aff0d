"""MetaOptNet-SVM: feasible and optimal by its duality gap, scikit-learn's solution, and its meta-gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import check_meta_gradient, classification, compiled, regression

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.svm import fit_dual, svm

C = 0.5


def problem(n, dim, way, spread=1.0, dtype=np.float32):
    """Non-negative features, as ReLU leaves them, around one centre a class."""
    label = np.arange(n) % way
    centres, noise = (np.random.default_rng(i).standard_normal((m, dim)) for i, m in ((0, way), (1, n)))
    return np.maximum(centres[label] + spread * noise, 0).astype(dtype), np.eye(way, dtype=dtype)[label]


def weights(rows, *how, **more):
    """Of the machine: its fit's own dual variables times the rows."""
    return rows.T @ np.asarray(fit_dual(rows, *how, **more))


def values(rows, targets, alpha, c):
    """The primal's and the dual's value; equal only at the solution."""
    x, y, alpha = (np.asarray(part, np.float64) for part in (rows, targets, alpha))
    scores = x @ (x.T @ alpha)
    slack = np.max(1 - y + scores - np.sum(scores * y, 1, keepdims=True), axis=1)
    square = np.sum(alpha * scores)
    return square / 2 + c * slack.sum(), np.sum(alpha * y) - square / 2


@pytest.mark.parametrize(("n", "dim"), [(12, 5), (6, 20)])
def test_the_dual_solution_is_feasible_and_leaves_no_gap_to_the_primal(n, dim):
    with jax.enable_x64(True):
        rows, targets = problem(n, dim, 3, 2.0, np.float64)
        alpha = np.asarray(fit_dual(rows, targets, C, 3000))
    np.testing.assert_allclose(alpha.sum(1), 0, atol=1e-12)
    assert (alpha <= C * targets + 1e-12).all()
    primal, dual = values(rows, targets, alpha, C)
    assert primal > 0.05
    assert primal - dual == pytest.approx(0, abs=1e-6 * primal)


@pytest.mark.parametrize(("way", "shot", "dim", "within"), [(5, 1, 256, 0.01), (5, 5, 256, 0.01), (20, 5, 64, 0.1)])
def test_the_default_number_of_steps_comes_close(way, shot, dim, within):
    rows, targets = problem(way * shot, dim, way)
    few, many = (weights(rows, targets, 0.1, iterations) for iterations in (60, 2000))
    assert np.linalg.norm(few - many) < within * np.linalg.norm(many)


def test_scikit_learn_finds_the_same_machine():
    machines = pytest.importorskip("sklearn.svm")
    rows, targets = problem(15, 4, 3, 2.0)
    peer = machines.LinearSVC(multi_class="crammer_singer", C=C, fit_intercept=False, tol=1e-7, max_iter=100_000)
    peer.fit(rows, targets.argmax(-1))
    np.testing.assert_allclose(weights(rows, targets, C, 2000), peer.coef_.T, atol=1e-3)


def test_a_number_on_the_diagonal_is_a_feature_of_each_examples_own():
    """1 in the authors' code: the machine of [X, I], whose predictions for others use X alone."""
    rows, targets = problem(12, 5, 3, 2.0)
    wanted = np.asarray(fit_dual(np.concatenate([rows, np.eye(12, dtype=np.float32)], axis=1), targets, C, 500))
    np.testing.assert_allclose(fit_dual(rows, targets, C, 500, diagonal=1.0), wanted, atol=1e-4)
    assert np.abs(wanted - fit_dual(rows, targets, C, 500, diagonal=0.0)).max() > 1e-2


def test_padding_and_classes_that_nobody_belongs_to_change_nothing():
    rows, targets = problem(6, 4, 2)
    wanted = weights(rows, targets, C, 60)
    found = weights(np.pad(rows, ((0, 2), (0, 0))), np.pad(targets, ((0, 2), (0, 1))), C, 60)
    np.testing.assert_allclose(found[:, :2], wanted, atol=1e-5)
    np.testing.assert_array_equal(found[:, 2], 0)


def test_features_of_zeros_leave_a_gradient_that_is_a_number():
    targets = np.eye(3, dtype=np.float32)
    slope = compiled(jax.grad(lambda rows: (rows.T @ fit_dual(rows, targets, C, 10)).sum()))
    assert np.isfinite(slope(np.zeros((3, 4), np.float32))).all()


def test_the_meta_gradient_is_the_finite_difference_in_float64():
    check_meta_gradient(svm(MLP(widths=(6, 5), dtype=jnp.float64), way=3, l2=1.0), classification())


def test_regression_and_no_steps_are_refused():
    with pytest.raises(ValueError, match="support vector machine takes classification"):
        svm(Identity(), way=1).init(jax.random.key(0), regression())
    with pytest.raises(ValueError, match="at least 1 step, got iterations=0"):
        svm(Identity(), way=3, iterations=0)
