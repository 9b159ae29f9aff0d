"""Fine-tuning baselines: their closed form, what they leave alone, and that they are not meta-trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import WAY, check_padding, classification, one, regression, start

from metarep_jax.encoders.features import Identity, Whitened, fit_whitening, whitened_stats
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.metalearn.finetune import finetune
from metarep_jax.train import meta_learning
from metarep_jax.types import Context, Keys

ENCODER = MLP(widths=(6, 5))
ROWS = 6
KINDS = ("head", "cosine_head", "all", "scratch")


def learner(what, encoder=ENCODER, **how):
    return finetune(encoder, way=WAY, what=what, **{"test_steps": 5, "test_batch": ROWS, "inner_lr": 0.1, **how})


def answers(method, params, state, given, key=0, **how):
    """The task and the logits of the queries."""
    ctx = dataclasses.replace(method.test_context, **how)

    @jax.jit
    def answer(params, state, given, key):
        task = method.adapt(params, state, given.support, key, ctx)
        return task, method.predict(params, state, task, given.query.inputs, ctx)

    task, outputs = answer(params, state, given, jax.random.key(key))
    return task, outputs.get("logits", outputs.get("mean"))


def test_a_linear_head_on_frozen_features_ends_at_ridge_regression():
    """Weight decay δ on all weights: (2/n XᵀX + δI) W = 2/n Xᵀy, where X has a column of ones."""
    given = regression()
    method = finetune(Identity(), way=1, output="mean", inner_lr=0.1, test_steps=300, test_batch=ROWS, weight_decay=0.3)
    task, mean = answers(method, *method.init(jax.random.key(0), given), given)
    x = np.concatenate([np.asarray(given.support.inputs, np.float64), np.ones((ROWS, 1))], 1)
    wanted = np.linalg.solve(2 / ROWS * x.T @ x + 0.3 * np.eye(3), 2 / ROWS * x.T @ np.asarray(given.support.label))
    np.testing.assert_allclose(task["fitted"]["head"]["kernel"], wanted[:2], rtol=1e-4)
    np.testing.assert_allclose(task["fitted"]["head"]["bias"], wanted[2], rtol=1e-4)
    np.testing.assert_allclose(mean, given.query.inputs @ wanted[:2] + wanted[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", KINDS)
def test_each_learns_its_support_set_and_trains_only_what_it_says(what):
    given = classification()
    method = learner(what, test_steps=60)
    params, state = start(method, given)
    assert set(params) == set(state) == {"encoder"}
    again = given._replace(query=given.support)
    task, logits = answers(method, params, state, again, norm="running" if what != "scratch" else "support")
    np.testing.assert_array_equal(logits.argmax(-1), given.support.label)
    assert set(task["fitted"]) == ({"head"} if "head" in what else {"encoder", "head"})
    if what == "all":
        apart = task["fitted"]["encoder"]["Dense_0"]["kernel"] - params["encoder"]["Dense_0"]["kernel"]
        assert jnp.abs(apart).max() > 1e-3


def test_cosines_are_bounded_by_the_temperature_and_do_not_see_the_length_of_features():
    given = classification()
    method = learner("cosine_head", Identity(), temperature=0.5)
    params, state = method.init(jax.random.key(0), given)
    longer = given._replace(query=given.query._replace(inputs=7.0 * given.query.inputs))
    logits = answers(method, params, state, given)[1]
    np.testing.assert_allclose(answers(method, params, state, longer)[1], logits, rtol=1e-4, atol=1e-5)
    assert jnp.abs(logits).max() <= 2 and jnp.ptp(logits) > 0.1
    before = answers(method, params, state, given, inner_steps=0)[1]
    np.testing.assert_allclose(before, before[:, :1].repeat(WAY, 1), rtol=1e-5)  # no class is before another


def test_from_scratch_the_checkpoint_does_not_matter_and_the_key_does():
    given = classification()
    method = learner("scratch")
    params, state = start(method, given)
    _, logits = answers(method, params, state, given)
    far = jax.tree.map(lambda leaf: leaf + 1.0, (params, state))
    np.testing.assert_array_equal(answers(method, *far, given)[1], logits)
    assert jnp.abs(answers(method, params, state, given, key=1)[1] - logits).max() > 1e-2


def test_from_scratch_running_averages_are_those_of_the_support_set():
    given = classification()
    method = learner("scratch")
    given_to = start(method, given)
    found = [answers(method, *given_to, given, norm=norm)[1] for norm in ("running", "support")]
    np.testing.assert_array_equal(*found)


def test_a_whitening_is_part_of_frozen_features_and_nothing_to_a_network_from_scratch():
    given = classification()
    params, state = start(learner("head"), given)

    def features(rows):
        variables = {"params": params["encoder"], "batch_stats": state["encoder"]}
        return ENCODER.apply(variables, rows.inputs, None, True)

    whitening = fit_whitening(features(given.support))
    white = {"encoder": whitened_stats(state["encoder"], whitening)}
    task = type(given)(*(rows._replace(inputs=whitening(features(rows))) for rows in given))
    wanted = answers(learner("head", Identity()), {"encoder": {}}, {"encoder": {}}, task)[1]
    found = answers(learner("head", Whitened(ENCODER)), params, white, given)[1]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    scratch = answers(learner("scratch", Whitened(ENCODER)), params, white, given)[1]
    np.testing.assert_array_equal(scratch, answers(learner("scratch"), params, state, given)[1])


@pytest.mark.parametrize("what", ["head", "all"])
def test_before_any_step_no_class_is_before_another(what):
    given = classification()
    method = learner(what)
    assert not answers(method, *start(method, given), given, inner_steps=0)[1].any()


@pytest.mark.parametrize("what", KINDS)
def test_padding_changes_no_answer(what):
    check_padding(learner(what), classification(), "support")


@pytest.mark.parametrize("what", KINDS)
def test_meta_training_is_refused(what):
    method = learner(what)
    trainable = meta_learning(method)
    episodes = one(classification())
    params, state = trainable.init(jax.random.key(0), episodes)
    keys = Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0))
    with pytest.raises(ValueError, match=rf"fine-tuning \({what}\).*cannot be meta-trained.*experiments.evaluate"):
        trainable.grads(params, state, episodes, keys, 0)


def test_unknown_kinds_and_cosines_as_regression_are_refused():
    with pytest.raises(ValueError, match="unknown what='body'; there are: head, cosine_head, all, scratch"):
        learner("body")
    with pytest.raises(ValueError, match="takes classification only"):
        learner("cosine_head", output="mean")


def test_each_kind_has_a_name_of_its_own():
    given = classification()
    names = ("finetune_head", "finetune_cosine_head", "finetune_all", "scratch")
    for name, what in zip(names, KINDS, strict=True):
        config = LearnerConfig(name=name, test_steps=5, test_batch=ROWS, inner_lr=0.1)
        method = make_learner(config, ENCODER, way=WAY)
        params, state = start(method, given)
        adapt = functools.partial(method.adapt, ctx=Context(norm="running"))
        shapes = jax.eval_shape(adapt, params, state, given.support, jax.random.key(0))
        assert set(shapes["fitted"]) == ({"head"} if "head" in what else {"encoder", "head"})
        assert adapts_encoder(name) is ("head" not in what)
