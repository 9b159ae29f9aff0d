"""Fine-tuning baselines: their closed form, what they leave alone, and that they are not meta-trained."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import WAY, classification, compiled, furthest, regression, start

from metarep_jax.encoders.features import Identity, Whitened, fit_whitening, whitened_stats
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.metalearn.finetune import finetune
from metarep_jax.train import meta_learning
from metarep_jax.types import Context, Episode

ENCODER, ROWS = MLP(widths=(6, 5)), 6
KINDS = ("head", "cosine_head", "all", "scratch")


def apart(rows):
    inputs = 3 * np.eye(4)[np.asarray(rows.label)] + 0.3 * np.asarray(rows.inputs)
    return rows._replace(inputs=jnp.asarray(inputs, jnp.float32))


GIVEN = Episode(*map(apart, classification()))  # its classes lie apart


@functools.cache
def learner(what, encoder=ENCODER, **how):
    return finetune(encoder, way=WAY, what=what, **{"test_steps": 60, "test_batch": ROWS, "inner_lr": 0.1, **how})


@functools.cache
def checkpoint():
    """The same for all of them: parameters and state hold an encoder alone."""
    return start(learner("head"), GIVEN)


@functools.cache
def answering(method, **how):
    """``(params, state, episode, key) -> task, answers to the queries``, compiled."""
    ctx = dataclasses.replace(method.test_context, **how)

    @compiled
    def answer(params, state, given, key):
        task = method.adapt(params, state, given.support, key, ctx)
        outputs = method.predict(params, state, task, given.query.inputs, ctx)
        return task, outputs["logits" if "logits" in outputs else "mean"]

    return lambda params, state, given, key=0: answer(params, state, given, jax.random.key(key))


def test_a_linear_head_on_frozen_features_ends_at_ridge_regression():
    """Weight decay δ on all weights: (2/n XᵀX + δI) W = 2/n Xᵀy, where X has a column of ones."""
    given = regression()
    method = finetune(Identity(), way=1, output="mean", inner_lr=0.1, test_steps=300, test_batch=ROWS, weight_decay=0.3)
    task, mean = answering(method)({"encoder": {}}, {"encoder": {}}, given)
    x = np.concatenate([np.asarray(given.support.inputs, np.float64), np.ones((ROWS, 1))], 1)
    wanted = np.linalg.solve(2 / ROWS * x.T @ x + 0.3 * np.eye(3), 2 / ROWS * x.T @ np.asarray(given.support.label))
    np.testing.assert_allclose(task["fitted"]["head"]["kernel"], wanted[:2], rtol=1e-4)
    np.testing.assert_allclose(task["fitted"]["head"]["bias"], wanted[2], rtol=1e-4)
    np.testing.assert_allclose(mean, np.asarray(given.query.inputs) @ wanted[:2] + wanted[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", KINDS)
def test_each_learns_its_support_set_and_trains_only_what_it_says(what):
    params, state = checkpoint()
    task, logits = answering(learner(what))(params, state, GIVEN._replace(query=GIVEN.support))
    np.testing.assert_array_equal(np.asarray(logits).argmax(-1), GIVEN.support.label)
    assert set(task["fitted"]) == ({"head"} if "head" in what else {"encoder", "head"})
    if what == "all":
        assert furthest(task["fitted"]["encoder"]["Dense_0"], params["encoder"]["Dense_0"]) > 1e-3


@pytest.mark.parametrize("what", KINDS)
def test_parameters_are_an_encoder_alone_which_may_be_an_earlier_stages(what):
    params, state = checkpoint()
    given = {"params": params["encoder"], "batch_stats": state["encoder"]}
    found = compiled(learner(what).init)(jax.random.key(0), GIVEN, given)
    jax.tree.map(np.testing.assert_array_equal, found, (params, state))


def test_cosines_are_bounded_by_the_temperature_and_do_not_see_the_length_of_features():
    method, empty = learner("cosine_head", Identity(), temperature=0.5), ({"encoder": {}}, {"encoder": {}})
    _, logits = answering(method)(*empty, GIVEN)
    longer = GIVEN.query._replace(inputs=7 * np.asarray(GIVEN.query.inputs))
    _, longer = answering(method)(*empty, GIVEN._replace(query=longer))
    np.testing.assert_allclose(longer, logits, rtol=1e-4, atol=1e-5)
    assert np.abs(logits).max() <= 2 and np.ptp(logits) > 0.1
    before = np.asarray(answering(method, inner_steps=0)(*empty, GIVEN)[1])
    np.testing.assert_allclose(before, before[:, :1].repeat(WAY, 1), rtol=1e-5)  # no class is before another
    assert np.ptp(before) > 1e-3


def test_before_any_step_a_linear_head_says_nothing():
    assert not np.asarray(answering(learner("all"), inner_steps=0)(*checkpoint(), GIVEN)[1]).any()


def test_from_scratch_the_checkpoint_does_not_matter_and_the_key_does():
    answer, given = answering(learner("scratch")), checkpoint()
    _, logits = answer(*given, GIVEN)
    far = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, given)
    np.testing.assert_array_equal(answer(*far, GIVEN)[1], logits)
    assert furthest(answer(*given, GIVEN, key=1)[1], logits) > 1e-2


def test_from_scratch_running_averages_are_those_of_the_support_set():
    found = [answering(learner("scratch"), norm=norm)(*checkpoint(), GIVEN)[1] for norm in ("running", "support")]
    np.testing.assert_array_equal(*found)


def test_a_whitening_is_part_of_frozen_features_and_nothing_to_a_network_from_scratch():
    params, state = checkpoint()

    def features(rows):
        variables = {"params": params["encoder"], "batch_stats": state["encoder"]}
        return ENCODER.apply(variables, rows.inputs, None, True)

    @compiled
    def whitened():
        whitening = fit_whitening(features(GIVEN.support))
        return whitening, Episode(*(rows._replace(inputs=whitening(features(rows))) for rows in GIVEN))

    whitening, task = whitened()
    white = {"encoder": whitened_stats(state["encoder"], whitening)}
    few = {"test_steps": 3}
    _, wanted = answering(learner("head", Identity(), **few))({"encoder": {}}, {"encoder": {}}, task)
    _, found = answering(learner("head", Whitened(ENCODER), **few))(params, white, GIVEN)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    _, scratch = answering(learner("scratch", Whitened(ENCODER)))(params, white, GIVEN)
    np.testing.assert_array_equal(scratch, answering(learner("scratch"))(params, state, GIVEN)[1])


@pytest.mark.parametrize("what", KINDS)
def test_meta_training_is_refused(what):
    with pytest.raises(ValueError, match=rf"fine-tuning \({what}\).*cannot be meta-trained.*experiments.evaluate"):
        meta_learning(learner(what), chunk=2)


def test_unknown_kinds_and_cosines_as_regression_are_refused():
    with pytest.raises(ValueError, match="unknown what='body'; there are: head, cosine_head, all, scratch"):
        inspect.unwrap(finetune)(ENCODER, way=WAY, what="body")  # as outside of tests, where types are not checked
    with pytest.raises(ValueError, match="takes classification only"):
        learner("cosine_head", output="mean")


def test_each_kind_has_a_name_of_its_own():
    names = ("finetune_head", "finetune_cosine_head", "finetune_all", "scratch")
    for name, what in zip(names, KINDS, strict=True):
        method = make_learner(LearnerConfig(name=name, test_steps=5), ENCODER, way=WAY)
        adapt = functools.partial(method.adapt, ctx=Context(norm="running"))
        shapes = jax.eval_shape(adapt, *checkpoint(), GIVEN.support, jax.random.key(0))
        assert set(shapes["fitted"]) == ({"head"} if "head" in what else {"encoder", "head"})
        assert shapes["support_loss"].shape == (5,)
        assert adapts_encoder(name) is ("head" not in what)
