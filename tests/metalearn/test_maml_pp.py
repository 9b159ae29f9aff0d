"""MAML++: each remedy by itself, and their limits, in which it is MAML."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import (
    WAY,
    check_meta_gradient,
    check_padding,
    classification,
    compiled,
    furthest,
    one,
    one_gradient,
    start,
)

from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.base import cross_entropy
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.maml_pp import maml_pp, step_importance
from metarep_jax.types import Context, EpisodeSpec, Keys, episode_of

ENCODER, GIVEN = MLP(widths=(6, 5)), classification()
KEYS = Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0))
SHIFT = "encoder/Norm_0/bias"


@functools.cache
def learner(encoder=ENCODER, **how):
    return maml_pp(encoder, way=WAY, **{"inner_steps": 2, "test_steps": 2, "multi_step_updates": 10, **how})


@functools.cache
def setting(method):
    """Parameters, and state."""
    return start(method, GIVEN)


def close(found, wanted, rtol=2e-5, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, wanted)


@functools.cache
def meta_grad(method):
    """``(params, state, update) -> grads, state, metrics`` of one task."""
    return compiled(lambda params, state, step: method.meta_grad(params, state, one(GIVEN), KEYS, step))


@functools.cache
def adapted(method, steps, norm="transductive"):
    """``(params, state) -> fast weights, logits of the queries`` after so many steps."""
    ctx = Context(train=True, inner_steps=steps, norm=norm)

    @compiled
    def answer(params, state):
        task = method.adapt(params, state, GIVEN.support, KEYS.shared, ctx)
        return task["fast"], method.predict(params, state, task, GIVEN.query.inputs, ctx)["logits"]

    return answer


def with_rule(params, part, path, value):
    """The parameters with one leaf of the learned rule set to ``value``."""
    rule = params["rule"]
    leaf = np.broadcast_to(np.float32(value), rule[part][path].shape)
    return {**params, "rule": {**rule, part: {**rule[part], path: leaf}}}


def test_importance_goes_in_a_line_from_all_steps_alike_to_the_last_alone():
    importance = compiled(step_importance, static_argnums=(1, 2))
    np.testing.assert_allclose(importance(0, 4, 10), [0.25] * 4)
    np.testing.assert_allclose(importance(5, 4, 10), [0.125] * 3 + [0.625])
    for update in (10, 99):
        np.testing.assert_allclose(importance(update, 4, 10), [0, 0, 0, 1])


def test_the_meta_gradient_is_the_finite_difference_also_in_the_learned_rates_and_norms():
    check_meta_gradient(learner(MLP(widths=(6, 5), dtype=jnp.float64)), GIVEN)


def test_with_equal_rates_no_norms_and_the_last_loss_alone_it_is_maml():
    encoder = MLP(widths=(6, 5), norm="none")
    method, plain = learner(encoder, multi_step_updates=0), maml(encoder, way=WAY, inner_lr=0.1, inner_steps=2)
    weights, _ = start(plain, GIVEN)
    params, state = compiled(method.init)(jax.random.key(0), GIVEN)
    found = meta_grad(method)({**params, **weights}, state, 0)
    wanted = one_gradient(plain, weights, state, GIVEN)
    close({room: found[0][room] for room in weights}, wanted[0])
    close(found[2], wanted[2])


def test_the_loss_is_that_of_the_queries_after_each_step_weighted_and_in_the_end_the_last_ones():
    method = learner()
    params, state = setting(method)
    logits = [adapted(method, steps)(params, state)[1] for steps in (1, 2)]
    losses = np.array([compiled(cross_entropy)({"logits": values}, GIVEN.query) for values in logits])
    assert abs(losses[0] - losses[1]) > 1e-3
    for update, weights in ((0, [0.5, 0.5]), (5, [0.25, 0.75]), (10, [0, 1])):
        loss = meta_grad(method)(params, state, update)[2]["loss"]
        assert float(loss) == pytest.approx(float(losses @ weights), rel=1e-5)
    last_alone = meta_grad(learner(multi_step_updates=0))(params, state, 0)
    close(meta_grad(method)(params, state, 10)[0], last_alone[0])


def test_second_order_comes_after_the_first_order_updates():
    annealed = learner(multi_step_updates=0, first_order_updates=3)
    given = setting(annealed)
    first, second = (meta_grad(learner(multi_step_updates=0, **how))(*given, 0)[0] for how in ({"order": 1}, {}))
    assert furthest(first, second) > 1e-3
    close(meta_grad(annealed)(*given, 2)[0], first)
    close(meta_grad(annealed)(*given, 3)[0], second)


def test_each_step_and_each_weight_has_a_rate_of_its_own():
    method = learner()
    params, state = setting(method)
    still = with_rule(params, "learning_rate", "encoder/Dense_0/kernel", [0.0, 0.2])
    before, (one_step, _), (two_steps, _) = params, *(adapted(method, steps)(still, state) for steps in (1, 2))
    kernel = lambda weights, layer: weights["encoder"][layer]["kernel"]  # noqa: E731
    np.testing.assert_array_equal(kernel(one_step, "Dense_0"), kernel(before, "Dense_0"))
    assert furthest(kernel(one_step, "Dense_1"), kernel(before, "Dense_1")) > 1e-4
    assert furthest(kernel(two_steps, "Dense_0"), kernel(before, "Dense_0")) > 1e-4


def test_each_step_has_norms_of_its_own_which_no_inner_step_moves():
    method = learner()
    params, state = setting(method)
    shifted = with_rule(params, "norms", SHIFT, 2.0)  # the second step's
    (one_step, _), (two_steps, _) = (adapted(method, steps)(shifted, state) for steps in (1, 2))
    close(one_step, adapted(method, 1)(params, state)[0])
    np.testing.assert_array_equal(one_step["encoder"]["Norm_0"]["bias"], params["encoder"]["Norm_0"]["bias"])
    np.testing.assert_array_equal(two_steps["encoder"]["Norm_0"]["bias"], np.full(6, 2.0))
    assert furthest(two_steps["head"], adapted(method, 2)(params, state)[0]["head"]) > 1e-4


def test_steps_beyond_those_of_training_use_the_last_ones_rates_and_norms():
    two, three = learner(), learner(inner_steps=3)
    params, state = setting(two)
    repeat = functools.partial(jax.tree.map, lambda leaf: np.concatenate([leaf, np.asarray(leaf)[-1:]]))
    longer = {**params, "rule": repeat(params["rule"])}, {**state, "norms": repeat(state["norms"])}
    close(adapted(two, 3)(params, state), adapted(three, 3)(*longer))


def test_at_test_it_takes_its_own_number_of_steps():
    method = learner(test_steps=1)
    params, state = setting(method)
    task = compiled(lambda: method.adapt(params, state, GIVEN.support, KEYS.shared, method.test_context))()
    close(task["fast"], adapted(learner(), 1)(params, state)[0])


def test_running_averages_of_each_step_move_by_the_passes_of_support_set_and_queries():
    method = learner()
    params, state = setting(method)
    for path in params["rule"]["learning_rate"]:
        params = with_rule(params, "learning_rate", path, 0.0)  # the weights stay, so that the averages are known
    kernel = np.asarray(params["encoder"]["Dense_0"]["kernel"])
    support, query = (0.1 * np.mean(np.asarray(rows.inputs) @ kernel, 0) for rows in GIVEN)
    both, alone = 0.9 * support + query, support
    for update, first, last in ((0, both, both), (10, alone, both)):
        moved = meta_grad(method)(params, state, update)[1]
        np.testing.assert_allclose(moved["encoder"]["Norm_0"]["mean"], first, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(moved["norms"]["Norm_0"]["mean"], [last], rtol=1e-4, atol=1e-6)


def test_under_running_averages_each_step_uses_its_own():
    method = learner()
    params, state = setting(method)
    far = {**state, "norms": jax.tree.map(lambda leaf: np.asarray(leaf) + 1, state["norms"])}  # the second step's
    (_, near_one), (_, far_one) = (adapted(method, 1, "running")(params, at) for at in (state, far))
    np.testing.assert_array_equal(far_one, near_one)
    (_, near_two), (_, far_two) = (adapted(method, 2, "running")(params, at) for at in (state, far))
    assert furthest(far_two, near_two) > 1e-2


def test_padding_changes_no_answer_under_each_steps_running_averages_either():
    check_padding(learner(), GIVEN, "running")


def test_one_step_needs_no_later_norms():
    method = learner(inner_steps=1, multi_step_updates=0)
    params, state = setting(method)
    assert params["rule"]["norms"] == state["norms"] == {}
    grads, *_ = meta_grad(method)(params, state, 0)
    assert np.abs(grads["rule"]["learning_rate"]["head/kernel"]).max() > 1e-4


def temporary_bytes(method):
    given = episode_of(EpisodeSpec(way=5, shot=1, query=1), jnp.zeros((1, 14, 14, 1)))
    params, state = jax.eval_shape(lambda: method.init(jax.random.key(0), given))
    keys = jax.eval_shape(lambda: KEYS)
    lowered = jax.jit(method.meta_grad).lower(params, state, one(given), keys, jnp.int32(0))
    return lowered.compile({"xla_backend_optimization_level": 0}).memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_annealing_the_order_takes_no_more_memory_than_second_order():
    how = {"way": 5, "inner_steps": 2, "multi_step_updates": 0}
    encoder = Conv4(width=8, readout="mean")
    annealed, plain = (temporary_bytes(maml_pp(encoder, **how, first_order_updates=n)) for n in (5, 0))
    assert annealed <= 1.2 * plain


@pytest.mark.parametrize("how", [{"inner_steps": 0}, {"multi_step_updates": -1}, {"first_order_updates": -1}])
def test_no_inner_step_and_negative_updates_are_refused(how):
    with pytest.raises(ValueError, match="inner_steps of at least 1 and updates of at least 0"):
        learner(**how)
