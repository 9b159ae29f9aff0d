"""Relation Networks: the module's closed form, the paper's squared error, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import adapted, check_meta_gradient, classification, compiled, regression, start

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.base import cross_entropy
from metarep_jax.metalearn.relation import relation, squared_error_to_match
from metarep_jax.types import Context, Examples

RUNNING = Context(norm="running")


def test_a_class_is_the_sum_of_its_shots_and_the_module_scores_it_beside_the_query():
    learner, given = relation(Identity(), way=3, hidden=6), classification()
    params, state = start(learner, given)
    support = given.support._replace(mask=jnp.array([True, True, True, False, False, False]))
    _, found = adapted(learner, params, state, given._replace(support=support), RUNNING)
    found = jax.tree.map(np.asarray, found)
    x, rule = np.asarray(given.support.inputs), jax.tree.map(np.asarray, params["rule"])
    classes = np.stack([x[0] + x[1], x[2]])
    joined = np.stack([[np.concatenate([row, query]) for row in classes] for query in np.asarray(given.query.inputs)])
    for layer in ("Dense_0", "Dense_1"):
        joined = np.maximum(joined @ rule[layer]["kernel"] + rule[layer]["bias"], 0)
    wanted = 1 / (1 + np.exp(-(joined @ rule["Dense_2"]["kernel"] + rule["Dense_2"]["bias"])[..., 0]))
    np.testing.assert_allclose(found["score"][:, :2], wanted, rtol=1e-5)
    np.testing.assert_array_equal(found["score"][:, 2], 0)
    np.testing.assert_array_equal(found["logits"].argmax(-1), wanted.argmax(-1))


def test_the_squared_error_compares_scores_with_the_one_match():
    score = jnp.array([[0.9, 0.2, 0.0], [0.5, 0.5, 1.0], [9.0, 9.0, 9.0]])
    query = Examples(jnp.array([[0.0]] * 3), jnp.array([0, 2, 1]), jnp.array([True, True, False]))
    wanted = ((0.1**2 + 0.2**2) + (0.5**2 + 0.5**2)) / 2
    assert float(compiled(squared_error_to_match)({"score": score}, query)) == pytest.approx(wanted, rel=1e-6)


def test_the_meta_gradient_is_the_finite_difference_in_float64():
    learner = relation(MLP(widths=(6, 5), dtype=jnp.float64), way=3, hidden=6)
    check_meta_gradient(learner, classification())


def test_the_loss_is_a_choice():
    given = classification()
    outputs = {"logits": jnp.array([[2.0, 0, 0]] * 6), "score": jnp.array([[0.9, 0.5, 0.5]] * 6)}
    for score_loss, loss in (("squared_error", squared_error_to_match), ("cross_entropy", cross_entropy)):
        learner = relation(Identity(), way=3, score_loss=score_loss)
        assert float(compiled(learner.loss)(outputs, given.query)) == float(compiled(loss)(outputs, given.query))


def test_regression_is_refused():
    with pytest.raises(ValueError, match="Relation Networks takes classification: class numbers"):
        relation(Identity(), way=1).init(jax.random.key(0), regression())
