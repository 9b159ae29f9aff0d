"""CAVIA: a context for each task, and the same weights for all."""

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
    compiled,
    one_gradient,
    regression,
    start,
)
from flax import linen as nn

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.metalearn.cavia import append, cavia
from metarep_jax.types import Context

PLACES = ["input", "features"]
WITHOUT_NORM = MLP(widths=(5,), norm="none")


def learner_at(place, **how):
    return cavia(how.pop("encoder", WITHOUT_NORM), way=WAY, context=2, context_at=place, **how)


@pytest.mark.parametrize("place", PLACES)
def test_without_inner_steps_it_is_the_network_without_a_context(place):
    learner, episode = learner_at(place), classification()
    params, state = start(learner, episode)
    task, found = adapted(learner, params, state, episode, Context(inner_steps=0))
    np.testing.assert_array_equal(task["context"], np.zeros(2))
    x = episode.query.inputs
    x = np.pad(x, ((0, 0), (0, 2))) if place == "input" else x
    features = np.asarray(compiled(WITHOUT_NORM.apply)({"params": params["encoder"]}, x))
    linear = params["head"] if place == "input" else params["head"]["linear"]
    np.testing.assert_allclose(found["logits"], features @ linear["kernel"] + linear["bias"], atol=1e-5)


def test_one_step_on_a_linear_model_is_a_closed_form():
    """f(x) = xA + φB + b: φ' = −α (2/n) Σ (f(x) − y) B, the same for all inputs."""
    learner = cavia(Identity(), way=1, context=2, inner_lr=0.3, inner_steps=1, output="mean")
    episode = regression()
    params, state = start(learner, episode)
    task, found = adapted(learner, params, state, episode, learner.train_context)
    support, episode, head = jax.tree.map(np.asarray, (episode.support, episode, params["head"]))
    a, b, bias = head["kernel"][:2], head["kernel"][2:], head["bias"]
    context = -0.3 * 2 * np.mean(support.inputs @ a + bias - support.label, 0) @ b.T
    np.testing.assert_allclose(task["context"], context, rtol=1e-5)
    np.testing.assert_allclose(found["mean"], episode.query.inputs @ a + context @ b + bias, rtol=1e-4, atol=1e-5)


def test_features_are_scaled_by_one_plus_and_shifted_by_what_is_linear_in_the_context():
    learner, episode = learner_at("features"), classification()
    params, state = start(learner, episode)
    task, found = jax.tree.map(np.asarray, adapted(learner, params, state, episode))
    scale, shift = np.split(task["context"] @ params["head"]["film"]["kernel"], 2)
    assert np.ptp(scale) > 1e-3
    linear = params["head"]["linear"]
    wanted = (found["features"] * (1 + scale) + shift) @ linear["kernel"] + linear["bias"]
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)


ENCODED = []


class Counted(nn.Module):
    """An encoder that notes each call."""

    @nn.compact
    def __call__(self, x, mask=None, running=False):
        ENCODED.append(x.shape)
        return MLP(widths=(5,), norm="none")(x, mask, running)


@pytest.mark.parametrize(("place", "times"), [("input", 3), ("features", 1)])
def test_a_task_is_its_context_and_no_copy_of_a_weight(place, times):
    learner, episode = learner_at(place, encoder=Counted()), classification()
    params, state = start(learner, episode)
    ENCODED.clear()

    def adapt(support):
        return learner.adapt(params, state, support, jax.random.key(0), Context(inner_steps=3))

    tasks = jax.tree.map(lambda leaf: jnp.asarray(np.stack([leaf] * 7)), episode.support)
    task = jax.eval_shape(jax.vmap(adapt), tasks)
    assert len(ENCODED) == times
    assert set(task) == {"context", "support", "support_loss"}
    assert task["context"].shape == (7, 2)
    assert "context" not in params["head"]  # it starts at zero, and is not learned


@pytest.mark.parametrize("place", PLACES)
def test_the_meta_gradient_is_the_finite_difference(place):
    encoder = MLP(widths=(5,), norm="none", dtype=jnp.float64)
    check_meta_gradient(learner_at(place, encoder=encoder), classification())


def test_mixed_mode_and_recomputing_change_no_gradient():
    episode, encoder = classification(), MLP(widths=(5,))
    plain, other = (learner_at("features", encoder=encoder, mixed=on, remat=on) for on in (False, True))
    params, state = start(plain, episode)
    plain, other = (one_gradient(learner, params, state, episode) for learner in (plain, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), plain, other)


@pytest.mark.parametrize(("place", "norm"), [("input", "support"), ("features", "transductive")])
def test_padding_of_support_and_queries_changes_no_answer(place, norm):
    encoder = MLP(widths=(5,), norm="layer" if place == "input" else "batch")
    check_padding(learner_at(place, encoder=encoder), classification(), norm, steps=1)


def test_bytes_beside_a_context_are_scaled_as_encoders_scale_them():
    pixels, phi = jnp.array([[[[0, 51], [102, 255]]]], jnp.uint8), jnp.array([7.0])
    np.testing.assert_allclose(append(pixels, phi)[0, 0], [[0, 0.2, 7], [0.4, 1, 7]], rtol=1e-6)
    np.testing.assert_array_equal(append(pixels.astype(jnp.float32), phi)[..., :2], pixels)


def test_by_default_regression_has_its_context_at_the_input_and_classification_at_the_features():
    learner = cavia(WITHOUT_NORM, way=1, output="mean")
    params, _ = start(learner, regression())
    assert params["encoder"]["Dense_0"]["kernel"].shape == (2 + 5, 5)
    learner = make_learner(LearnerConfig(name="cavia", context=3), MLP(widths=(5,)), way=WAY)
    params, _ = start(learner, classification())
    assert params["head"]["film"]["kernel"].shape == (3, 2 * 5)
    assert not adapts_encoder("cavia")


def test_a_context_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="batch norm subtracts it again"):
        cavia(MLP(widths=(5,)), way=1, context_at="input")
    with pytest.raises(ValueError, match="length 1 or more, got context=0"):
        cavia(WITHOUT_NORM, way=WAY, context=0)
    with pytest.raises(ValueError, match="length 1 or more, got context=0"):
        make_learner(LearnerConfig("cavia", context=0), WITHOUT_NORM, way=WAY)
    learner = cavia(WITHOUT_NORM, way=1, output="mean")
    with pytest.raises(ValueError, match="an earlier stage's encoder does not fit"):
        learner.init(jax.random.key(0), regression(), {"params": {}})
    check_refused(learner, classification(), r"CAVIA takes regression: .*; this task is classification")
