"""MAML++: each remedy by itself, and their limits, in which it is MAML."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import WAY, check_meta_gradient, check_padding, classification, one, one_gradient, start

from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.base import cross_entropy
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.maml_pp import maml_pp, step_importance
from metarep_jax.types import Context, EpisodeSpec, Keys, episode_of

ENCODER = MLP(widths=(6, 5))
KEYS = Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0))
TWO = {"inner_steps": 2, "test_steps": 2}
SHIFT = "encoder/Norm_0/bias"


def learner(encoder=ENCODER, **how):
    return maml_pp(encoder, way=WAY, **{**TWO, "multi_step_updates": 10, **how})


def close(found, wanted, rtol=2e-5, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, wanted)


def meta_grad_at(method, params, state, given):
    """The meta-gradient as a function of the update, compiled once."""
    return functools.partial(jax.jit(method.meta_grad), params, state, one(given), KEYS)


def fast(method, params, state, given, steps):
    ctx = Context(train=True, inner_steps=steps)
    return jax.jit(lambda params: method.adapt(params, state, given.support, KEYS.shared, ctx)["fast"])(params)


def query_loss(method, params, state, given, steps):
    ctx = Context(train=True, inner_steps=steps)
    task = method.adapt(params, state, given.support, KEYS.shared, ctx)
    return cross_entropy(method.predict(params, state, task, given.query.inputs, ctx), given.query)


def with_rule(params, part, path, value):
    """The parameters with one leaf of the learned rule set to ``value``."""
    rule = params["rule"]
    leaf = jnp.broadcast_to(jnp.asarray(value, jnp.float32), rule[part][path].shape)
    return {**params, "rule": {**rule, part: {**rule[part], path: leaf}}}


def test_importance_goes_in_a_line_from_all_steps_alike_to_the_last_alone():
    np.testing.assert_allclose(step_importance(0, 4, 10), [0.25] * 4)
    np.testing.assert_allclose(step_importance(5, 4, 10), [0.125] * 3 + [0.625])
    for update in (10, 99):
        np.testing.assert_allclose(step_importance(update, 4, 10), [0, 0, 0, 1])


def test_the_meta_gradient_is_the_finite_difference_also_in_the_learned_rates_and_norms():
    check_meta_gradient(learner(MLP(widths=(6, 5), dtype=jnp.float64)), classification())


def test_with_equal_rates_no_norms_and_the_last_loss_alone_it_is_maml():
    encoder, given = MLP(widths=(6, 5), norm="none"), classification()
    method, plain = learner(encoder, multi_step_updates=0), maml(encoder, way=WAY, inner_lr=0.1, inner_steps=2)
    weights, _ = start(plain, given)
    params, state = method.init(jax.random.key(0), given)
    found = one_gradient(method, {**params, **weights}, state, given)
    wanted = one_gradient(plain, weights, state, given)
    close({room: found[0][room] for room in weights}, wanted[0])
    close(found[2], wanted[2])


def test_the_loss_is_that_of_the_queries_after_each_step_weighted_and_in_the_end_the_last_ones():
    method, given = learner(), classification()
    params, state = start(method, given)
    at = meta_grad_at(method, params, state, given)
    losses = np.array([jax.jit(lambda n=n: query_loss(method, params, state, given, n))() for n in (1, 2)])
    assert abs(losses[0] - losses[1]) > 1e-3
    for update, weights in ((0, [0.5, 0.5]), (5, [0.25, 0.75]), (10, [0, 1])):
        assert float(at(update)[2]["loss"]) == pytest.approx(float(losses @ weights), rel=1e-5)
    close(at(10)[0], one_gradient(learner(multi_step_updates=0), params, state, given)[0])


def test_second_order_comes_after_the_first_order_updates():
    method, given = learner(first_order_updates=3), classification()
    params, state = start(method, given)
    at = meta_grad_at(method, params, state, given)
    by_order = [meta_grad_at(learner(order=order), params, state, given) for order in (1, 2)]
    close(at(2)[0], by_order[0](2)[0])
    close(at(3)[0], by_order[1](3)[0])
    apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), by_order[0](2)[0], by_order[1](2)[0])
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_each_step_and_each_weight_has_a_rate_of_its_own():
    method, given = learner(), classification()
    params, state = start(method, given)
    path = "encoder/Dense_0/kernel"
    still = with_rule(params, "learning_rate", path, [0.0, 0.2])
    one_step, two_steps = (fast(method, still, state, given, steps)["encoder"] for steps in (1, 2))
    np.testing.assert_array_equal(one_step["Dense_0"]["kernel"], params["encoder"]["Dense_0"]["kernel"])
    assert jnp.abs(one_step["Dense_1"]["kernel"] - params["encoder"]["Dense_1"]["kernel"]).max() > 1e-4
    assert jnp.abs(two_steps["Dense_0"]["kernel"] - params["encoder"]["Dense_0"]["kernel"]).max() > 1e-4


def test_each_step_has_norms_of_its_own_which_no_inner_step_moves():
    method, given = learner(), classification()
    params, state = start(method, given)
    shifted = with_rule(params, "norms", SHIFT, 2.0)  # the second step's
    one_step, two_steps = (fast(method, shifted, state, given, steps) for steps in (1, 2))
    close(one_step, fast(method, params, state, given, 1))
    np.testing.assert_array_equal(one_step["encoder"]["Norm_0"]["bias"], params["encoder"]["Norm_0"]["bias"])
    np.testing.assert_array_equal(two_steps["encoder"]["Norm_0"]["bias"], np.full(6, 2.0))
    apart = two_steps["head"]["kernel"] - fast(method, params, state, given, 2)["head"]["kernel"]
    assert jnp.abs(apart).max() > 1e-4


def test_steps_beyond_those_of_training_use_the_last_ones_rates_and_norms():
    given = classification()
    two, three = learner(), learner(inner_steps=3)
    params, state = start(two, given)
    repeat = functools.partial(jax.tree.map, lambda leaf: jnp.concatenate([leaf, leaf[-1:]]))
    longer = {**params, "rule": repeat(params["rule"])}
    wanted = fast(three, longer, {**state, "norms": repeat(state["norms"])}, given, 3)
    close(fast(two, params, state, given, 3), wanted)


def test_running_averages_of_each_step_move_by_the_passes_of_support_set_and_queries():
    method, given = learner(), classification()
    params, state = start(method, given)
    for path in params["rule"]["learning_rate"]:
        params = with_rule(params, "learning_rate", path, 0.0)  # the weights stay, so that sums are known
    at = meta_grad_at(method, params, state, given)
    kernel = params["encoder"]["Dense_0"]["kernel"]
    support, query = (0.1 * np.mean(rows.inputs @ kernel, 0) for rows in given)
    both, alone = 0.9 * support + query, support
    for update, first, last in ((0, both, both), (10, alone, both)):
        moved = at(update)[1]
        np.testing.assert_allclose(moved["encoder"]["Norm_0"]["mean"], first, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(moved["norms"]["Norm_0"]["mean"], [last], rtol=1e-4, atol=1e-6)


def test_under_running_averages_each_step_uses_its_own():
    method, given = learner(), classification()
    params, state = start(method, given)
    far = {**state, "norms": jax.tree.map(lambda leaf: leaf + 1.0, state["norms"])}  # the second step's

    @functools.partial(jax.jit, static_argnums=1)
    def logits(state, steps):
        ctx = Context(inner_steps=steps, norm="running")
        task = method.adapt(params, state, given.support, KEYS.shared, ctx)
        return method.predict(params, state, task, given.query.inputs, ctx)["logits"]

    np.testing.assert_array_equal(logits(far, 1), logits(state, 1))
    assert jnp.abs(logits(far, 2) - logits(state, 2)).max() > 1e-2


@pytest.mark.parametrize("norm", ["transductive", "running"])
def test_padding_changes_no_answer(norm):
    check_padding(learner(), classification(), norm)


def test_one_step_needs_no_later_norms():
    method, given = learner(inner_steps=1), classification()
    params, state = start(method, given)
    assert params["rule"]["norms"] == state["norms"] == {}
    grads, *_ = one_gradient(method, params, state, given)
    assert jnp.abs(grads["rule"]["learning_rate"]["head/kernel"]).max() > 1e-4


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


def test_at_test_it_takes_its_own_number_of_steps():
    method, given = learner(test_steps=1), classification()
    params, state = start(method, given)
    ctx = dataclasses.replace(method.test_context)
    found = jax.jit(lambda: method.adapt(params, state, given.support, KEYS.shared, ctx)["fast"])()
    close(found, fast(method, params, state, given, 1))
