"""Meta-SGD: learned rates, their gradient, and what they can do that one rate cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import WAY, adapted, check_meta_gradient, check_refused, classification, one_gradient, regression, start

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.meta_sgd import meta_sgd
from metarep_jax.types import Context, Episode, Examples

ENCODER = MLP(widths=(5,))


def with_rates(params, value):
    """The parameters with all rates equal, and those of MAML."""
    weights = {"encoder": params["encoder"], "head": params["head"]}
    rates = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), weights)
    return {**weights, "rule": {"learning_rate": rates}}, weights


def test_with_equal_rates_it_is_maml():
    learner, episode = meta_sgd(ENCODER, way=WAY, inner_steps=2, mixed=True, remat=True), classification()
    params, state = start(learner, episode)
    params, weights = with_rates(params, 0.3)
    found = one_gradient(learner, params, state, episode)
    method = maml(ENCODER, way=WAY, inner_lr=0.3, inner_steps=2)
    wanted = one_gradient(method, weights, state, episode)
    grads = {"encoder": found[0]["encoder"], "head": found[0]["head"]}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), (grads, *found[1:]), wanted)


def test_the_meta_gradient_is_the_finite_difference():
    encoder = MLP(widths=(5,), dtype=jnp.float64)
    check_meta_gradient(meta_sgd(encoder, way=WAY, inner_lr=0.3, inner_steps=2), classification())


def test_on_linear_regression_the_gradients_of_rates_and_weights_are_closed_forms():
    """w' = w − α ∘ g: dL/dα = −g ∘ L'(w') and dL/dw = (I − H diag α) L'(w'), H = (2/n) XᵀX."""
    learner, episode = meta_sgd(Identity(), way=1, inner_lr=0.1, output="mean"), regression()
    params, state = start(learner, episode, noise=0.1)
    grads, _, _ = one_gradient(learner, params, state, episode)

    def columns(rows):
        return np.concatenate([np.asarray(rows.inputs, np.float64), np.ones((len(rows.inputs), 1))], 1)

    def joined(tree):
        return np.concatenate([np.asarray(tree["kernel"], np.float64), np.asarray(tree["bias"])[None]])

    def gradient(rows, weights):
        x = columns(rows)
        return 2 / len(x) * x.T @ (x @ weights - np.asarray(rows.label))

    weights, alpha = joined(params["head"]), joined(params["rule"]["learning_rate"]["head"])
    assert np.ptp(alpha) > 0.01
    inner = gradient(episode.support, weights)
    outer = gradient(episode.query, weights - alpha * inner)
    x = columns(episode.support)
    np.testing.assert_allclose(joined(grads["rule"]["learning_rate"]["head"]), -inner * outer, rtol=1e-4)
    wanted = (np.eye(3) - 2 / len(x) * x.T @ x * alpha.T) @ outer
    np.testing.assert_allclose(joined(grads["head"]), wanted, rtol=1e-4)


def test_a_rate_for_each_weight_solves_in_one_step_what_no_single_rate_does():
    """On inputs with orthogonal columns of lengths 2 and 20, α_j = n / (2 ‖x_j‖²) reaches the least squares."""
    inputs = jnp.array([[1.0, 10], [1, -10], [-1, 10], [-1, -10]])
    rows = Examples(inputs, inputs @ jnp.array([[3.0], [-2.0]]))
    learner = meta_sgd(Identity(), way=1, output="mean")
    params, state = start(learner, Episode(rows, rows))
    rates = {"kernel": jnp.array([[0.5], [0.005]]), "bias": jnp.full(1, 0.5)}
    params["rule"] = {"learning_rate": {"encoder": {}, "head": rates}}
    _, found = adapted(learner, params, state, Episode(rows, rows), Context(inner_steps=1))
    np.testing.assert_allclose(found["mean"], rows.label, rtol=1e-4)


@pytest.mark.parametrize(("inner_lr", "low", "high"), [((0.005, 0.1), 0.005, 0.1), (0.4, 0.4, 0.4)])
def test_all_rates_start_from_one_number_of_the_range(inner_lr, low, high):
    learner, episode = meta_sgd(ENCODER, way=WAY, inner_lr=inner_lr), classification()
    drawn = []
    for seed in range(3):
        params, _ = start(learner, episode, seed, noise=0)
        rates = params["rule"]["learning_rate"]
        weights = {"encoder": params["encoder"], "head": params["head"]}
        assert jax.tree.map(lambda leaf: leaf.shape, rates) == jax.tree.map(lambda leaf: leaf.shape, weights)
        values = np.unique(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(rates)]))
        assert len(values) == 1
        drawn.append(float(values[0]))
    assert np.float32(low) <= min(drawn) <= max(drawn) <= np.float32(high)
    assert (len(set(drawn)) == 3) is (low < high)


@pytest.mark.parametrize("inner_lr", [0.0, -0.1, (0.0, 0.1), (0.2, 0.1)])
def test_rates_that_are_not_positive_or_ascending_are_refused(inner_lr):
    with pytest.raises(ValueError, match=r"positive inner_lr, or an ascending range of these, got"):
        meta_sgd(ENCODER, way=WAY, inner_lr=inner_lr)


def test_tasks_that_do_not_fit_are_refused_and_a_config_sets_the_first_rate():
    check_refused(meta_sgd(ENCODER, way=1), regression(), r"Meta-SGD takes classification: .*; this task is regression")
    learner = make_learner(LearnerConfig(name="meta_sgd", inner_lr=0.25), ENCODER, way=WAY)
    params, _ = start(learner, classification(), noise=0)
    assert float(params["rule"]["learning_rate"]["head"]["bias"][0]) == 0.25
