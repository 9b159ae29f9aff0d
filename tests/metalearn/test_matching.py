"""Matching Networks: attention in closed form, Prototypical Networks at one shot, and full context by the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import check_meta_gradient, classification, compiled, like, regression, start

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.base import UNREACHABLE
from metarep_jax.metalearn.matching import QueryContext, SupportContext, matching
from metarep_jax.metalearn.prototypical import prototypical
from metarep_jax.types import Context, Examples

RUNNING = Context(norm="running")
EMPTY = {"encoder": {}}


def answers(learner):
    """``(support, inputs, params) -> logits``."""

    def logits(support, inputs, params=EMPTY):
        task = learner.adapt(params, EMPTY, support, jax.random.key(0), RUNNING)
        return learner.predict(params, EMPTY, task, inputs, RUNNING)["logits"]

    return logits


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_at_one_shot_it_is_prototypical_networks_under_the_same_distance(distance):
    given = classification(shot=1)
    found = compiled(answers(matching(Identity(), way=3, distance=distance)))(given.support, given.query.inputs)
    prototypes = compiled(answers(prototypical(Identity(), way=3, distance=distance)))(
        given.support, given.query.inputs
    )
    prototypes = np.asarray(prototypes, np.float64)
    wanted = prototypes - np.log(np.exp(prototypes).sum(1, keepdims=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_label_distribution_is_the_attention_summed_by_class():
    given = classification()
    found = compiled(answers(matching(Identity(), way=3, temperature=1.0)))(given.support, given.query.inputs)
    support, query = np.asarray(given.support.inputs, np.float64), np.asarray(given.query.inputs, np.float64)
    lengths = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(support, axis=1)
    attention = np.exp(query @ support.T / lengths)
    attention /= attention.sum(1, keepdims=True)
    wanted = attention.reshape(len(query), 3, 2).sum(2)
    np.testing.assert_allclose(np.exp(found), wanted, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)


def test_a_class_without_support_is_out_of_reach_and_the_gradient_stays_a_number():
    given = classification()
    inputs = np.array(given.support.inputs)
    inputs[:2] = 0
    support = given.support._replace(inputs=jnp.asarray(inputs), mask=jnp.asarray(np.arange(6) < 4))
    logits = answers(matching(Identity(), way=3))
    found = np.asarray(compiled(logits)(support, given.query.inputs))
    np.testing.assert_array_equal(found[:, 2], UNREACHABLE)
    np.testing.assert_allclose(np.exp(found[:, :2]).sum(1), 1, rtol=1e-5)
    gradient = compiled(jax.grad(lambda x: logits(support._replace(inputs=x), given.query.inputs)[:, :2].sum()))
    assert np.isfinite(gradient(support.inputs)).all()


def lstm(weights, x, hidden, memory):
    def gate(name):
        recurrent = weights[f"h{name}"]
        return x @ weights[f"i{name}"]["kernel"] + hidden @ recurrent["kernel"] + recurrent["bias"]

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    memory = sigmoid(gate("f")) * memory + sigmoid(gate("i")) * np.tanh(gate("g"))
    return sigmoid(gate("o")) * np.tanh(memory), memory


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def normal(seed, rows):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((rows, 3)), jnp.float32)


def weights_of(module, *inputs):
    """Parameters of noise."""
    shapes = jax.eval_shape(module.init, jax.random.key(1), *inputs)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 + 0.5 * leaf), like(shapes, 1))


def test_the_support_context_is_two_lstms_that_meet_at_each_example():
    rows, module = normal(0, 5), SupportContext()
    params = weights_of(module, rows, jnp.int32(5))
    weights, x, count = double(params), double(rows), 4
    sides = []
    for cell, order in (("LSTMCell_0", range(count)), ("LSTMCell_1", reversed(range(count)))):
        hidden, memory, side = np.zeros(3), np.zeros(3), np.zeros((count, 3))
        for row in order:
            hidden, memory = lstm(weights[cell], x[row], hidden, memory)
            side[row] = hidden
        sides.append(side)
    found = np.asarray(compiled(module.apply)({"params": params}, rows, jnp.int32(count)))
    np.testing.assert_allclose(found[:count], x[:count] + sides[0] + sides[1], rtol=1e-5)


def test_the_query_context_follows_the_papers_equations():
    queries, embedded, counts = normal(0, 2), normal(1, 4), jnp.array([True, True, False, True])
    module = QueryContext(reads=3)
    params = weights_of(module, queries, embedded, counts)
    cell, f, g = double(params)["LSTMCell_0"], double(queries), double(embedded)[np.asarray(counts)]
    hidden = memory = np.zeros((2, 3))
    for _ in range(3):
        attention = np.exp(hidden @ g.T)
        read = attention / attention.sum(1, keepdims=True) @ g
        output, memory = lstm(cell, np.concatenate([f, read], 1), hidden, memory)
        hidden = output + f
    found = compiled(module.apply)({"params": params}, queries, embedded, counts)
    np.testing.assert_allclose(found, hidden, rtol=1e-5)


def test_with_full_context_rows_that_do_not_count_are_not_read_and_the_order_of_the_others_matters():
    learner, given = matching(Identity(), way=3, full_context=True), classification()
    params, _ = start(learner, given)
    inputs, label = np.asarray(given.support.inputs), np.asarray(given.support.label)
    compiled_answers = compiled(answers(learner))
    logits = lambda *support: np.asarray(compiled_answers(Examples(*support), given.query.inputs, params))  # noqa: E731
    everyone = np.ones(6, bool)
    wanted = logits(inputs, label, everyone)
    places = np.array([0, 2, 6])
    padded = np.insert(inputs, places, 9, 0), np.insert(label, places, 1), np.insert(everyone, places, False)
    np.testing.assert_allclose(logits(*padded), wanted, rtol=1e-4, atol=1e-5)
    order = np.array([4, 0, 3, 5, 1, 2])
    assert np.abs(logits(inputs[order], label[order], everyone) - wanted).max() > 1e-3


@pytest.mark.parametrize("how", [{"distance": "cosine"}, {"full_context": True, "reads": 2}], ids=str)
def test_the_meta_gradient_is_the_finite_difference_in_float64(how):
    check_meta_gradient(matching(MLP(widths=(4,), dtype=jnp.float64), way=3, **how), classification())


def test_regression_and_no_reads_are_refused():
    with pytest.raises(ValueError, match="Matching Networks takes classification: class numbers"):
        matching(Identity(), way=1).init(jax.random.key(0), regression())
    with pytest.raises(ValueError, match="at least once, got reads=0"):
        matching(Identity(), way=3, reads=0)
