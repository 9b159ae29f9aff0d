"""Prototypical networks and logistic regression over frozen features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import adapted, check_meta_gradient, classification, compiled, regression

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LEARNERS, LearnerConfig, make_learner
from metarep_jax.metalearn.base import UNREACHABLE
from metarep_jax.metalearn.logistic import fit_logistic, logistic_regression
from metarep_jax.metalearn.prototypical import class_means, distances, prototypical
from metarep_jax.types import Context, Episode, Examples, MetaLearner

EMPTY = {"encoder": {}}


def test_prototypes_are_class_means_over_the_rows_that_count():
    rows = jnp.array([[1.0, 0], [3, 0], [0, 2], [9, 9]])
    label = jnp.array([0, 0, 1, 1])
    found = compiled(class_means, static_argnums=2)(rows, label, 2, jnp.array([True, True, True, False]))
    np.testing.assert_allclose(found, [[2, 0], [0, 2]])


def test_distances_have_their_closed_forms():
    rows, prototypes = jnp.array([[1.0, 2]]), jnp.array([[1.0, 0], [4, 6]])
    measured = compiled(distances, static_argnames="distance")
    np.testing.assert_allclose(measured(rows, prototypes), [[4, 25]])
    cosine = 1 - np.array([[1 / 5**0.5, (4 + 12) / (5**0.5 * 52**0.5)]])
    np.testing.assert_allclose(measured(rows, prototypes, distance="cosine"), cosine, atol=1e-6)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_accelerators_round_no_factor_of_a_distance_nor_of_its_gradient(distance):
    def total(features, prototypes):
        return distances(features, prototypes, distance).sum()

    traced = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(jnp.ones((4, 3)), jnp.ones((2, 3))))
    assert traced.count("dot_general") == traced.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0


def test_logits_are_negative_squared_distances():
    learner = prototypical(Identity(), way=2)
    support = Examples(jnp.array([[0.0, 0], [2, 0]]), jnp.array([0, 1]))
    query = Examples(jnp.array([[0.5, 0]]), jnp.array([0]))
    _, found = adapted(learner, EMPTY, EMPTY, Episode(support, query), Context(norm="running"))
    np.testing.assert_allclose(found["logits"], [[-0.25, -2.25]])


def test_permuting_support_rows_and_classes_permutes_the_logits():
    learner = prototypical(Identity(), way=3)
    support, query = classification()
    rows, label = map(np.asarray, support[:2])
    ctx = Context(norm="running")

    @compiled
    def logits(rows, label):
        task = learner.adapt(EMPTY, EMPTY, Examples(rows, label), jax.random.key(0), ctx)
        return learner.predict(EMPTY, EMPTY, task, query.inputs, ctx)["logits"]

    order, renamed = np.array([5, 2, 0, 1, 4, 3]), np.array([2, 0, 1], np.int32)
    wanted = logits(rows, label)
    np.testing.assert_allclose(logits(rows[order], label[order]), wanted, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(logits(rows, renamed[label]))[:, renamed], wanted, rtol=1e-5)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_meta_gradient_is_the_finite_difference_in_float64(distance):
    learner = prototypical(MLP(widths=(6, 5), dtype=jnp.float64), way=3, distance=distance)
    check_meta_gradient(learner, classification())


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_class_without_support_and_features_of_zeros_leave_a_gradient_that_is_a_number(distance):
    learner, ctx = prototypical(Identity(), way=3, distance=distance), Context(norm="running")
    given = classification()
    support = given.support._replace(mask=jnp.asarray(np.arange(6) < 4))

    @compiled
    def gradient_and_logits(inputs):
        def reachable(inputs):
            task = learner.adapt(EMPTY, EMPTY, support._replace(inputs=inputs), jax.random.key(0), ctx)
            logits = learner.predict(EMPTY, EMPTY, task, inputs, ctx)["logits"]
            return logits[:, :2].sum(), logits

        return jax.grad(reachable, has_aux=True)(inputs)

    inputs = np.array(support.inputs)
    np.testing.assert_array_equal(gradient_and_logits(inputs)[1][:, 2], UNREACHABLE)
    inputs[0] = 0
    gradient = np.asarray(gradient_and_logits(inputs)[0])
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-3


def test_the_temperature_divides_the_distances():
    def logits(**how):
        learner = prototypical(Identity(), way=3, distance="cosine", **how)
        return np.asarray(adapted(learner, EMPTY, EMPTY, classification(), Context(norm="running"))[1]["logits"])

    np.testing.assert_allclose(logits() / 5, logits(temperature=0.5), rtol=1e-5)


@pytest.mark.parametrize("make", [prototypical, logistic_regression])
def test_regression_is_refused(make):
    with pytest.raises(ValueError, match="takes classification: class numbers"):
        make(Identity(), way=1).init(jax.random.key(0), regression())


@pytest.mark.parametrize("dim", [3, 40])
def test_logistic_regression_agrees_with_scikit_learn(dim):
    linear_model = pytest.importorskip("sklearn.linear_model")
    label, draw = np.arange(24) % 3, np.random.default_rng(2).standard_normal
    rows = (draw((24, dim)) + 0.5 * np.eye(3, dim)[label]).astype(np.float32)
    weights, bias = fit_logistic(rows, label, 3, l2=0.5, iterations=60)
    peer = linear_model.LogisticRegression(C=2.0, tol=1e-8, max_iter=2000).fit(rows, label)
    ours = softmax(rows @ np.asarray(weights) + np.asarray(bias))
    np.testing.assert_allclose(ours, peer.predict_proba(rows), atol=2e-3)


@pytest.mark.parametrize(("dim", "l2"), [(3, 1.0), (40, 1.0), (3, 0.01), (40, 0.01)])
def test_logistic_regression_converges_to_scikit_learns_minimum(dim, l2):
    linear_model = pytest.importorskip("sklearn.linear_model")
    label, draw = np.arange(24) % 3, np.random.default_rng(2).standard_normal
    rows = draw((24, dim)) + 0.5 * np.eye(3, dim)[label]
    peer = linear_model.LogisticRegression(C=1 / l2, tol=1e-12, max_iter=20_000).fit(rows, label)
    with jax.enable_x64(True):
        weights, bias = map(np.asarray, fit_logistic(rows, label, 3, l2=l2))
    np.testing.assert_allclose(softmax(rows @ weights + bias), peer.predict_proba(rows), atol=1e-6)
    single, _ = fit_logistic(rows.astype(np.float32), label, 3, l2=l2)
    np.testing.assert_allclose(single, weights, atol=2e-3 * np.abs(weights).max())


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def eight():
    """Eight rows of two classes that do not lie apart."""
    return np.random.default_rng(3).standard_normal((8, 2)).astype(np.float32), np.arange(8, dtype=np.int32) % 2


def test_logistic_regression_of_rows_that_do_not_count_changes_nothing():
    rows, label = eight()
    kept = fit_logistic(rows[:6], label[:6], 2)
    rows[6:] = 50.0
    masked = fit_logistic(rows, label, 2, mask=np.arange(8) < 6)
    np.testing.assert_allclose(masked[0], kept[0], atol=1e-3)


def test_logistic_regression_of_a_class_without_rows_is_the_one_without_that_class():
    """Else its bias would fall for ever, and where it is after 30 iterations would be up to the rounding."""
    rows, label = eight()
    (weights, bias), wanted = (jax.tree.map(np.asarray, fit_logistic(rows, label, classes)) for classes in (3, 2))
    np.testing.assert_allclose(weights[:, :2], wanted[0], atol=1e-3)
    np.testing.assert_allclose(bias[:2], wanted[1], atol=1e-3)
    np.testing.assert_array_equal((*weights[:, 2], bias[2]), 0)


def test_unknown_learner_lists_those_that_exist():
    with pytest.raises(ValueError, match=f"unknown learner 'mmal' .*there are: {', '.join(sorted(LEARNERS))};"):
        LearnerConfig(name="mmal")
    with pytest.raises(ValueError, match="cannot be loaded"):
        LearnerConfig("no_such_module:learner")


def test_a_learner_of_ones_own_is_named_by_its_dotted_path():
    learner = make_learner(LearnerConfig(name=f"{__name__}:always_first"), Identity(), way=2)
    logits = learner.predict(EMPTY, EMPTY, None, jnp.zeros((3, 1)), Context())["logits"]
    assert np.asarray(logits).argmax(-1).tolist() == [0, 0, 0]


def test_what_is_not_a_learner_is_refused():
    with pytest.raises(ValueError, match="returned dict, wanted"):
        make_learner(LearnerConfig(name=f"{__name__}:nothing"), Identity(), way=2)


def always_first(encoder, *, way):
    """A learner that ignores everything; named by path in a test."""
    del encoder
    first = prototypical(Identity(), way=way)
    return MetaLearner(
        init=first.init,
        adapt=lambda *args: None,
        predict=lambda params, state, task, inputs, ctx: {"logits": jnp.tile(jnp.eye(way)[0], (len(inputs), 1))},
        loss=first.loss,
    )


def nothing(encoder, *, way):
    """Not a learner."""
    del encoder, way
    return {}


@pytest.mark.parametrize(("name", "field"), [("maml", "inner_lr"), ("ridge", "l2"), ("prototypical", "temperature")])
def test_rates_must_be_positive(name, field):
    with pytest.raises(ValueError, match=f"{field} must be positive, got -1"):
        make_learner(LearnerConfig(name, **{field: -1.0}), Identity(), way=2)


def test_logistic_learner_separates_what_is_separable():
    learner = logistic_regression(Identity(), way=2)
    support = Examples(jnp.array([[1.0, 0], [0, 1]]), jnp.array([0, 1]))
    query = Examples(jnp.array([[0.9, 0.1], [0.1, 0.9]]), jnp.array([0, 1]))
    _, found = adapted(learner, EMPTY, EMPTY, Episode(support, query))
    assert np.asarray(found["logits"]).argmax(-1).tolist() == [0, 1]
