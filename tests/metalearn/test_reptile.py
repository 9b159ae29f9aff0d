"""Reptile: what its meta-gradient is, and what its inner optimiser remembers."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import WAY, classification, compiled, furthest, start

from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.network import network
from metarep_jax.metalearn.reptile import reptile
from metarep_jax.train import OptimiserConfig, make_optimiser
from metarep_jax.types import Context, Episode, EpisodeSpec, Keys

ROWS, TASKS = 6, 3
ENCODER = MLP(widths=(5,))
NET = network(ENCODER, WAY)
KEYS = Keys(jax.random.split(jax.random.key(3), TASKS), jax.random.key(0))
EPISODES = [classification(seed) for seed in range(TASKS)]
SUPPORT = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *(given.support for given in EPISODES))
NO_QUERY = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[:, :0]), SUPPORT)  # what Reptile trains on


@functools.cache
def learner(**how):
    return reptile(ENCODER, way=WAY, **{"inner_lr": 0.1, "inner_steps": 2, "inner_batch": ROWS, **how})


@functools.cache
def setting(method):
    """Parameters, and state."""
    return start(method, EPISODES[0])


@functools.cache
def meta_grad(method, chunk=None):
    """``(params, state) -> grads, state, metrics`` of the tasks."""
    episodes = Episode(SUPPORT, NO_QUERY)
    return compiled(lambda params, state: method.meta_grad(params, state, episodes, KEYS, 0, chunk=chunk))


@functools.cache
def adapted(method, **how):
    """``(params, state, key) -> fast weights`` of the first task."""
    ctx = Context(train=True, **how)
    return compiled(lambda params, state, key: method.adapt(params, state, EPISODES[0].support, key, ctx)["fast"])


def support_loss(weights, state, support):
    return NET.loss(NET.support(weights, state, support, Context()), support)


def close(found, wanted, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, wanted)


def test_one_step_of_gradient_descent_is_gradient_descent_on_the_mean_support_loss():
    method = learner(inner_optimiser="sgd", inner_steps=1)
    params, state = setting(method)

    @compiled
    @jax.value_and_grad
    def mean_loss(params):
        return jax.vmap(lambda support: support_loss(params, state, support))(SUPPORT).mean()

    value, gradient = mean_loss(params)
    found, _, metrics = meta_grad(method)(params, state)
    close(found, jax.tree.map(lambda leaf: 0.1 * np.asarray(leaf), gradient))
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 2])
def test_the_update_moves_the_weights_towards_the_mean_of_where_the_tasks_end(chunk):
    method = learner(inner_batch=4)
    params, state = setting(method)

    @compiled
    @jax.vmap
    def ends(support, key):
        return method.adapt(params, state, support, jax.random.split(key)[0], method.train_context)["fast"]

    mean = jax.tree.map(lambda leaf: np.asarray(leaf).mean(0), ends(SUPPORT, KEYS.example))
    grads, *_ = meta_grad(method, chunk)(params, state)
    optimiser = make_optimiser(OptimiserConfig(name="sgd", learning_rate=1.0, schedule="linear"), 4)
    memory, params = compiled(optimiser.init)(params), jax.tree.map(np.asarray, params)

    @compiled
    def update(memory):
        updates, memory = optimiser.update(grads, memory, params)
        return optax.apply_updates(params, updates), memory

    for size in (1.0, 0.75, 0.5, 0.25, 0.0):
        moved, memory = update(memory)
        close(moved, jax.tree.map(lambda a, b, size=size: (1 - size) * a + size * b, params, mean), atol=1e-5)


def test_without_inner_steps_nothing_moves():
    method = learner(inner_steps=0)
    params, state = setting(method)
    grads, moved, metrics = meta_grad(method)(params, state)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))
    jax.tree.map(np.testing.assert_array_equal, moved["moments"], state["moments"])
    assert float(metrics["loss"]) == 0


def test_moments_persist_as_the_mean_over_tasks_and_the_next_task_starts_from_them():
    method, optimiser = learner(), optax.adam(0.1, b1=0.0)
    params, state = setting(method)
    memory = compiled(optimiser.init)(params)

    def step(weights, memory, support):
        updates, memory = optimiser.update(jax.grad(support_loss)(weights, state, support), memory)
        return optax.apply_updates(weights, updates), memory

    @compiled
    @jax.vmap
    def two_steps(support):
        return step(*step(params, memory, support), support)[1]

    mean = jax.tree.map(lambda leaf: np.asarray(leaf).mean(0).astype(leaf.dtype), two_steps(SUPPORT))
    _, moved, _ = meta_grad(method)(params, state)
    close(moved["moments"], jax.tree.leaves(mean), atol=1e-7)
    assert moved["moments"][0].dtype == jnp.int32 and int(moved["moments"][0]) == 2
    found = adapted(method, inner_steps=1)(params, moved, KEYS.shared)
    close(found, compiled(step)(params, mean, EPISODES[0].support)[0], atol=1e-5)
    assert furthest(found, adapted(method, inner_steps=1)(params, state, KEYS.shared)) > 1e-2


def test_fresh_moments_make_the_first_step_the_gradients_sign_on_every_task():
    method = learner(moments="fresh")
    params, state = setting(method)
    assert "moments" not in state
    _, moved, _ = meta_grad(method)(params, state)
    assert "moments" not in moved
    sign = jax.tree.map(np.sign, compiled(jax.grad(support_loss))(params, state, EPISODES[0].support))
    wanted = jax.tree.map(lambda leaf, along: np.asarray(leaf) - 0.1 * along, params, sign)
    close(adapted(method, inner_steps=1)(params, moved, KEYS.shared), wanted, rtol=1e-3, atol=1e-3)


def test_the_key_alone_decides_the_minibatches():
    method = learner(inner_batch=2)
    params, state = setting(method)
    one, same, other = (adapted(method)(params, state, jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert furthest(one, other) > 1e-4


def test_by_default_a_query_is_classified_without_the_others():
    method, given = learner(test_steps=2), EPISODES[0]
    params, state = setting(method)
    ctx = method.test_context

    @compiled
    def logits(inputs):
        task = method.adapt(params, state, given.support, jax.random.key(0), ctx)
        return method.predict(params, state, task, inputs, ctx)["logits"]

    others = np.array(given.query.inputs)
    others[1:] += 10
    together, alone = np.asarray(logits(others)), np.asarray(logits(given.query.inputs))
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-5)


def test_running_averages_move_by_a_minibatch_at_the_adapted_weights():
    method = learner(moments="fresh")  # minibatches hold the whole support set
    params, state = setting(method)
    _, moved, _ = meta_grad(method)(params, state)
    fast = compiled(jax.vmap(lambda x: method.adapt(params, state, x, KEYS.shared, method.train_context)["fast"]))
    kernels = fast(SUPPORT)["encoder"]["Dense_0"]["kernel"]
    wanted = 0.1 * np.mean(np.asarray(SUPPORT.inputs) @ np.asarray(kernels), (0, 1))
    np.testing.assert_allclose(moved["encoder"]["Norm_0"]["mean"], wanted, rtol=1e-3, atol=1e-5)


def test_training_episodes_have_more_shots_and_no_queries():
    assert learner().episode_spec(EpisodeSpec(way=5, shot=1, query=15)) == EpisodeSpec(way=5, shot=10, query=0)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unknown moments 'kept'; there are: persistent, fresh"):
        inspect.unwrap(reptile)(ENCODER, way=WAY, moments="kept")  # as outside of tests, where types are not checked
    with pytest.raises(ValueError, match="unknown inner optimiser 'adm'"):
        inspect.unwrap(reptile)(ENCODER, way=WAY, inner_optimiser="adm")
