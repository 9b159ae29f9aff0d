"""R2-D2: both forms of ridge regression against the normal equations, its limits, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import adapted, check_meta_gradient, classification, compiled, regression, start

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.ridge import fit_ridge, ridge
from metarep_jax.types import Context

RUNNING = Context(norm="running")
fit = compiled(fit_ridge)


@pytest.mark.parametrize(("n", "dim"), [(4, 9), (6, 6), (12, 5)])
def test_both_forms_solve_the_normal_equations_in_float64(n, dim):
    x, y = (np.random.default_rng(i).standard_normal((n, d)) for i, d in ((0, dim), (1, 3)))
    l2 = 0.3
    wanted = np.linalg.solve(x.T @ x + l2 * np.eye(dim), x.T @ y)
    woodbury = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(n), y)
    with jax.enable_x64(True):
        found = np.asarray(fit(x, y, l2))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    np.testing.assert_allclose(found, woodbury, rtol=1e-9)


def test_a_vanishing_penalty_interpolates_and_a_great_one_gives_zero():
    rows, targets = np.random.default_rng(0).standard_normal((3, 8), np.float32), np.eye(3, dtype=np.float32)
    np.testing.assert_allclose(rows @ np.asarray(fit(rows, targets, 1e-6)), targets, atol=1e-4)
    np.testing.assert_allclose(fit(rows, targets, 1e9), 0, atol=1e-7)


@pytest.mark.parametrize("output", ["logits", "mean"])
def test_outputs_are_the_scaled_and_shifted_prediction_of_the_rows_that_count(output):
    given = classification() if output == "logits" else regression(weights=((1.0, 0.5), (-2.0, 0.1)))
    learner = ridge(Identity(), way=3 if output == "logits" else 2, output=output, l2=0.5)
    params, state = start(learner, given)
    rule = jax.tree.map(float, params["rule"])
    mask = jnp.array([True, True, True, True, True, False])
    masked = given._replace(support=given.support._replace(mask=mask))
    found = adapted(learner, params, state, masked, RUNNING)[1][output]
    x, targets = np.asarray(given.support.inputs)[:5], np.asarray(given.support.label)[:5]
    y = np.eye(3)[targets] if output == "logits" else targets
    weights = np.linalg.solve(x.T @ x + np.exp(rule["log_l2"]) * np.eye(x.shape[1]), x.T @ y)
    np.testing.assert_allclose(
        found, rule["scale"] * np.asarray(given.query.inputs) @ weights + rule["bias"], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("output", "dim"), [("logits", 8), ("mean", 4)])  # 6 rows: Woodbury's form, and the other
def test_the_meta_gradient_is_the_finite_difference_in_float64(output, dim):
    given = classification() if output == "logits" else regression()
    way = {"logits": 3, "mean": 1}[output]
    check_meta_gradient(ridge(MLP(widths=(6, dim), dtype=jnp.float64), way=way, output=output), given)


def test_labels_of_the_other_kind_are_refused():
    with pytest.raises(ValueError, match=r"R2-D2\) takes classification"):
        ridge(Identity(), way=1).init(jax.random.key(0), regression())
    with pytest.raises(ValueError, match=r"R2-D2\) takes regression"):
        ridge(Identity(), way=1, output="mean").init(jax.random.key(0), classification())
