"""ANIL and BOIL: MAML of which one half adapts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import (
    WAY,
    adapted,
    check_meta_gradient,
    check_padding,
    check_refused,
    classification,
    one_gradient,
    regression,
    start,
)
from flax import linen as nn

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.metalearn.anil import anil, boil
from metarep_jax.metalearn.maml import fast_weights
from metarep_jax.metalearn.network import network, zero_head
from metarep_jax.types import Context

ENCODER = MLP(widths=(5,))
HOW = {"inner_steps": 2, "test_steps": 3, "order": 2, "remat": False, "mixed": False, "test_norm": "transductive"}


def maml_of_the_head(**how):
    net = network(ENCODER, WAY)
    return fast_weights(net, lambda rule: {"learning_rate": 0.3}, adapts=("head",), **{**HOW, **how})


@pytest.mark.parametrize("how", [{"order": 1}, {"order": 2, "mixed": True, "remat": True}])
def test_anil_is_maml_whose_encoder_does_not_adapt(how):
    episode = classification()
    learner = anil(ENCODER, way=WAY, inner_lr=0.3, **{**HOW, **how})
    params, state = start(learner, episode)
    found = one_gradient(learner, params, state, episode)
    wanted = one_gradient(maml_of_the_head(order=how["order"]), params, state, episode)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, wanted)
    assert np.ptp(found[0]["encoder"]["Dense_0"]["kernel"]) > 1e-3


@pytest.mark.parametrize("make", [anil, boil])
def test_the_meta_gradient_is_the_finite_difference(make):
    encoder = MLP(widths=(5,), dtype=jnp.float64)
    check_meta_gradient(make(encoder, way=WAY, inner_lr=0.3, inner_steps=2), classification())


def test_on_the_encoders_features_anil_is_gradient_descent_in_closed_form():
    """w_k = M^k (w_0 − w*) + w*, with M = I − (2α/n) FᵀF and w* the least squares of the features F with a bias."""
    learner, episode = anil(MLP(widths=(3,)), way=1, inner_lr=0.2, test_steps=4, output="mean"), regression()
    params, state = start(learner, episode)
    task, found = adapted(learner, params, state, episode._replace(query=episode.support))
    features = found["features"]
    rows = np.concatenate([np.asarray(features, np.float64), np.ones((len(features), 1))], 1)
    first = np.concatenate([params["head"]["kernel"], params["head"]["bias"][None]])
    best = np.linalg.lstsq(rows, np.asarray(episode.support.label), rcond=None)[0]
    turn = np.linalg.matrix_power(np.eye(4) - 2 * 0.2 / len(rows) * rows.T @ rows, 4)
    wanted = first + (turn - np.eye(4)) @ (first - best)
    np.testing.assert_allclose(task["head"]["kernel"], wanted[:3], rtol=1e-4)
    np.testing.assert_allclose(task["head"]["bias"], wanted[3], rtol=1e-4)


ENCODED = []


class Counted(nn.Module):
    """An encoder that notes each call."""

    @nn.compact
    def __call__(self, x, mask=None, running=False):
        ENCODED.append(x.shape)
        return MLP(widths=(5,))(x, mask, running)


def test_the_support_is_encoded_once_and_a_task_is_a_head():
    learner, episode = anil(Counted(), way=WAY), classification()
    params, state = start(learner, episode)
    ENCODED.clear()

    def adapt(support):
        return learner.adapt(params, state, support, jax.random.key(0), Context(inner_steps=3))

    tasks = jax.tree.map(lambda leaf: jnp.asarray(np.stack([leaf] * 7)), episode.support)
    task = jax.eval_shape(jax.vmap(adapt), tasks)
    assert [episode.support.inputs.shape] == ENCODED
    assert set(task) == {"head", "support", "support_loss"}
    assert jax.tree.map(lambda leaf: leaf.shape, task["head"]) == {"kernel": (7, 5, WAY), "bias": (7, WAY)}


def test_without_inner_steps_both_are_the_network_itself():
    for make in (anil, boil):
        learner, episode = make(ENCODER, way=WAY), classification()
        params, state = start(learner, episode)
        _, found = adapted(learner, params, state, episode, Context(inner_steps=0))
        features, head = np.asarray(found["features"]), params["head"]
        np.testing.assert_allclose(found["logits"], features @ head["kernel"] + head["bias"], atol=1e-5)


@pytest.mark.parametrize(("make", "norm"), [(anil, "support"), (boil, "one_query")])
def test_padding_of_support_and_queries_changes_no_answer(make, norm):
    check_padding(make(ENCODER, way=WAY, inner_lr=0.3), classification(), norm, steps=1)


def test_boil_moves_the_encoder_and_only_the_encoder():
    learner, episode = boil(ENCODER, way=WAY, inner_lr=0.3), classification()
    params, state = start(learner, episode, noise=0)
    task, _ = adapted(learner, params, state, episode)
    assert set(task["fast"]) == {"encoder"}
    kernels = [tree["Dense_0"]["kernel"] for tree in (task["fast"]["encoder"], params["encoder"])]
    assert np.ptp(np.subtract(*kernels)) > 1e-3
    grads, _, _ = one_gradient(learner, params, state, episode)
    assert np.ptp(grads["head"]["kernel"]) > 1e-3  # which the outer loop learns


def test_boil_of_a_head_at_zero_could_not_adapt():
    learner, episode = boil(ENCODER, way=WAY, head=zero_head), classification()
    params, state = start(learner, episode, noise=0)
    task, _ = adapted(learner, params, state, episode)
    jax.tree.map(np.testing.assert_array_equal, task["fast"]["encoder"], params["encoder"])


def test_what_has_nothing_to_adapt_is_refused():
    with pytest.raises(ValueError, match="ANIL adapts its head, so it needs one, got head=None"):
        anil(ENCODER, way=WAY, head=None)
    with pytest.raises(ValueError, match="BOIL adapts its encoder by the gradient that a head passes back"):
        boil(ENCODER, way=WAY, head=None)
    headless = anil(ENCODER, way=WAY, head=lambda way: Identity())
    check_refused(headless, classification(), "ANIL adapts the head only, and this head has no parameters")
    bodiless = boil(Identity(), way=WAY)
    check_refused(bodiless, classification(), "BOIL adapts the encoder only, and this encoder has no parameters")


def test_tasks_and_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"ANIL needs at least 1 class .*, got way=0"):
        anil(ENCODER, way=0)
    check_refused(anil(ENCODER, way=1), regression(), r"ANIL takes classification: .*; this task is regression")
    of_targets = boil(ENCODER, way=1, output="mean")
    check_refused(of_targets, classification(), r"BOIL takes regression: .*; this task is classification")


def test_a_config_makes_them_and_knows_whose_encoder_is_shared():
    learner = make_learner(LearnerConfig(name="anil", inner_lr=0.3, inner_steps=2, order=1), ENCODER, way=WAY)
    assert learner.train_context.order == 1
    assert not adapts_encoder("anil")
    assert adapts_encoder("boil")
