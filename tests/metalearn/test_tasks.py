"""One function adapts, predicts and scores: masked rows count nowhere, in training, distillation and evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import classification, compiled, double, like, one, start

from metarep_jax.distill import cross_entropy, distil_few_shot, distillation_loss, hint, soft_targets
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate import episode_accuracy
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.meta_gradient import meta_gradient
from metarep_jax.metalearn.prototypical import prototypical
from metarep_jax.metalearn.tasks import run_task
from metarep_jax.types import Episode, Examples, Keys

WAY, SHOT, QUERY = 3, 2, 3
ENCODER = MLP(widths=(6, 5), norm="batch", dtype=jnp.float64)
KEYS = Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(1))


@pytest.fixture(autouse=True)
def double_precision():
    """Rows more or fewer change what is rounded, which second derivatives enlarge."""
    with jax.enable_x64(True):
        yield


def mixed(support, query):
    """A mixed episode's layout of 2-way 1-shot out of 3-way 2-shot: which rows are real, and with what in the others.

    ``support``, ``query``: the value that stands in the inputs of rows that are masked.
    """
    whole = jax.tree.map(double, classification(3, WAY, SHOT, QUERY))
    real = np.array([True, False, True, False, False, False]), np.arange(WAY * QUERY) < 2 * QUERY

    def padded(rows, mask, value):
        inputs = np.where(mask[:, None], rows.inputs, value)
        return Examples(jnp.asarray(inputs), jnp.asarray(np.where(mask, rows.label, 0)), jnp.asarray(mask))

    return Episode(padded(whole.support, real[0], support), padded(whole.query, real[1], query))


def cut(episode):
    """The same task without its masked rows."""

    def real(rows):
        inputs, label, mask = map(np.asarray, rows)
        return Examples(jnp.asarray(inputs[mask]), jnp.asarray(label[mask]))

    return Episode(*map(real, episode))


LEARNERS = {
    "maml": lambda: maml(ENCODER, way=WAY, inner_steps=1, test_steps=1),
    "prototypical": lambda: prototypical(ENCODER, way=WAY, test_norm="transductive"),
}


@functools.cache
def setting(name):
    """The learner and its first parameters; of the class that the small task lacks, the head is out of reach."""
    learner = LEARNERS[name]()
    params, state = start(learner, classification(0, WAY, SHOT, QUERY))
    if name == "maml":  # a mask lowers the logits of absent classes; an episode that is cut has no mask to say so
        params["head"] = jax.tree.map(np.array, params["head"])
        params["head"]["bias"][2] = -1e9
        params["head"]["kernel"][:, 2] = 0.0
    return learner, *jax.tree.map(double, (params, state))


def close(actual, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), actual, wanted)


@pytest.mark.parametrize("name", LEARNERS)
def test_in_training_a_mixed_episode_has_the_loss_accuracy_and_gradient_of_its_real_rows(name):
    learner, params, state = setting(name)
    step = compiled(lambda tasks: meta_gradient(learner)(params, state, tasks, KEYS, 0))
    tasks = mixed(7.0, -3.0), mixed(40.0, 25.0), small_way(name, cut(mixed(0.0, 0.0)))
    near, far, real = (step(one(task)) for task in tasks)
    close(near, far)
    close({key: near[2][key] for key in ("loss", "accuracy")}, {key: real[2][key] for key in ("loss", "accuracy")})
    close(near[:2], real[:2])


def small_way(name, episode):
    """Prototypical networks without a mask would have a prototype at 0 for the class that is absent."""
    if name == "maml":
        return episode
    return Episode(episode.support._replace(mask=jnp.asarray(np.ones(len(episode.support.label), bool))), episode.query)


@pytest.mark.parametrize("name", LEARNERS)
def test_in_evaluation_a_mixed_episode_has_the_accuracy_and_loss_of_its_real_rows(name):
    learner, params, state = setting(name)
    key, ctx = jax.random.key(0), learner.test_context

    @compiled
    def judge(episode):
        outcome = run_task(learner, params, state, episode, key, ctx)
        return outcome.loss, outcome.metrics, episode_accuracy(learner, params, state, episode, key)

    near, far, real = judge(mixed(7.0, -3.0)), judge(mixed(40.0, 25.0)), judge(small_way(name, cut(mixed(0.0, 0.0))))
    close(near, far)
    close(near, real)
    assert near[1]["accuracy"] == near[2]


def test_in_distillation_a_mixed_episode_has_the_loss_and_gradient_of_its_real_rows():
    teacher, params, state = setting("prototypical")
    student, student_params, student_state = setting("maml")
    loss = distillation_loss({cross_entropy(): 1.0, soft_targets(2.0): 0.5, hint(): 0.1})
    trainable = distil_few_shot(student, teacher, params, state, loss)
    terms = like(jax.eval_shape(trainable.init, jax.random.key(0), one(mixed(0.0, 0.0)))[0]["terms"], 5)
    both = {"student": student_params, "terms": jax.tree.map(jnp.asarray, terms)}
    step = compiled(
        lambda tasks: trainable.grads(both, {"student": student_state, "terms": ({}, {}, {})}, tasks, KEYS, 0)
    )
    tasks = mixed(7.0, -3.0), mixed(40.0, 25.0), small_way("prototypical", cut(mixed(0.0, 0.0)))
    near, far, real = (step(one(task)) for task in tasks)
    close(near, far)
    close(near, real)


def test_what_a_learner_shows_of_a_task_is_its_own_to_say():
    learner, params, state = setting("prototypical")
    counted = learner._replace(metrics=lambda outputs, query: {"rows": jnp.sum(query.mask)})
    ctx = learner.train_context

    @compiled
    def run(episode):
        return run_task(counted, params, state, episode, jax.random.key(0), ctx)

    outcome = run(mixed(0.0, 0.0))
    assert set(outcome.metrics) == {"loss", "rows"} and outcome.metrics["rows"] == 2 * QUERY
    assert "state" not in outcome.outputs and set(outcome.state) == {"encoder"}


def test_a_learner_without_a_loss_of_its_own_is_scored_by_what_it_predicts():
    learner, params, state = setting("maml")
    plain = learner._replace(loss=type(learner)._field_defaults["loss"])
    key, ctx = jax.random.key(0), plain.test_context

    @compiled
    def losses(episode):
        return [run_task(either, params, state, episode, key, ctx).loss for either in (plain, learner)]

    found, wanted = losses(mixed(0.0, 0.0))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_learner_that_is_not_told_which_queries_count_is_refused_for_mixed_episodes():
    learner, (support, query) = prototypical(ENCODER, way=WAY), classification()
    deaf = learner._replace(predict=lambda params, state, task, inputs, ctx: {"logits": inputs})
    mixed = Episode(support, query._replace(mask=np.arange(len(query.label)) < 1))
    with pytest.raises(ValueError, match=r"no keyword mask=None .* or leave least_way and least_shot out"):
        run_task(deaf, {}, {}, mixed, None, learner.test_context)
