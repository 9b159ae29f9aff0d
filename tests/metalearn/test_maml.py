"""MAML: its meta-gradient, its limits and its symmetries."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.base import cross_entropy, meta_gradient
from metarep_jax.metalearn.maml import maml
from metarep_jax.types import Context, Episode, EpisodeSpec, Examples, Keys, episode_of

WAY = 3


def episode(key, dtype=jnp.float32, shot=2, query=2):
    keys = jax.random.split(key)

    def rows(key, each):
        label = jnp.repeat(jnp.arange(WAY), each)
        return Examples(jax.random.normal(key, (WAY * each, 4), dtype), label)

    return Episode(rows(keys[0], shot), rows(keys[1], query))


def learner(**how):
    return maml(MLP(widths=(6, 5)), way=WAY, **{"inner_lr": 0.3, "inner_steps": 2, **how})


def start(method, given, seed=2):
    """Parameters with a random head, so that nothing vanishes."""
    params, state = method.init(jax.random.key(seed), given)
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = jax.random.normal(jax.random.key(seed + 1), kernel.shape, kernel.dtype)
    return params, state


def one(tree):
    return jax.tree.map(lambda leaf: leaf[None], tree)


def query_loss(method, params, state, given, ctx):
    task = method.adapt(params, state, given.support, jax.random.key(0), ctx)
    return cross_entropy(method.predict(params, state, task, given.query.inputs, ctx), given.query)


@pytest.mark.parametrize("order", [1, 2])
def test_the_second_order_gradient_alone_is_the_finite_difference_in_float64(order):
    with jax.enable_x64(True):
        method = maml(MLP(widths=(6, 5), dtype=jnp.float64), way=WAY, inner_lr=0.3, inner_steps=2, order=order)
        given = episode(jax.random.key(0), jnp.float64)
        params, state = start(method, given)
        params, state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, state))
        keys = Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0))
        grads, _, _ = jax.jit(meta_gradient(method))(params, state, one(given), keys, 0)
        direction = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(5), leaf.shape, leaf.dtype), params)

        @jax.jit
        def along(size):
            moved = jax.tree.map(lambda leaf, way: leaf + size * way, params, direction)
            return query_loss(method, moved, state, given, method.train_context)

        wanted = float(along(1e-6) - along(-1e-6)) / 2e-6
        found = float(sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), grads, direction))))
    assert (found == pytest.approx(wanted, rel=1e-6)) is (order == 2)


def test_on_linear_regression_everything_is_closed_form():
    """w' = w − (2α/n) Xᵀ(Xw − y); the meta-gradient multiplies by I − (2α/n) XᵀX."""
    method = maml(Identity(), way=1, inner_lr=0.1, inner_steps=1, output="mean")
    xs, xq = jax.random.normal(jax.random.key(0), (6, 2)), jax.random.normal(jax.random.key(1), (5, 2))
    ys, yq = xs @ jnp.array([[1.0], [-2.0]]), xq @ jnp.array([[1.0], [-2.0]])
    given = Episode(Examples(xs, ys), Examples(xq, yq))
    params, state = start(method, given)
    keys = Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0))
    grads, _, metrics = meta_gradient(method)(params, state, one(given), keys, 0)

    def columns(x):
        return np.concatenate([np.asarray(x, np.float64), np.ones((len(x), 1))], 1)

    weights = np.concatenate([np.asarray(params["head"]["kernel"]), np.zeros((1, 1))])
    support, query = columns(xs), columns(xq)
    moved = weights - 0.2 / 6 * support.T @ (support @ weights - np.asarray(ys))
    outer = 2 / 5 * query.T @ (query @ moved - np.asarray(yq))
    wanted = (np.eye(3) - 0.2 / 6 * support.T @ support) @ outer
    np.testing.assert_allclose(grads["head"]["kernel"], wanted[:2], rtol=1e-4)
    np.testing.assert_allclose(grads["head"]["bias"], wanted[2], rtol=1e-4)
    assert float(metrics["loss"]) == pytest.approx(float(np.mean((query @ moved - np.asarray(yq)) ** 2)), rel=1e-4)
    assert set(metrics) == {"loss"}


def test_without_inner_steps_it_is_the_network_itself():
    method, given = learner(), episode(jax.random.key(0))
    params, state = start(method, given)
    ctx = Context(inner_steps=0)
    task = method.adapt(params, state, given.support, jax.random.key(0), ctx)
    found = method.predict(params, state, task, given.query.inputs, ctx)
    jax.tree.map(np.testing.assert_array_equal, task["fast"], params)
    features = MLP(widths=(6, 5)).apply({"params": params["encoder"]}, given.query.inputs, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(found["features"], features, atol=1e-6)
    np.testing.assert_allclose(found["logits"], features @ params["head"]["kernel"], atol=1e-5)


def test_test_time_takes_its_own_number_of_steps():
    method, given = learner(inner_steps=1, test_steps=3), episode(jax.random.key(0))
    params, state = start(method, given)

    def fast(ctx):
        return method.adapt(params, state, given.support, jax.random.key(0), ctx)["fast"]

    def same(ctx, wanted):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), fast(ctx), fast(wanted))

    same(method.test_context, Context(inner_steps=3))
    same(method.train_context, Context(inner_steps=1))


@pytest.mark.parametrize("norm", ["transductive", "support", "one_query", "running"])
def test_padding_of_support_and_queries_changes_no_answer(norm):
    method, given = learner(), episode(jax.random.key(0))
    params, state = start(method, given)
    ctx = dataclasses.replace(method.test_context, norm=norm)

    def logits(support, inputs, mask=None):
        task = method.adapt(params, state, support, jax.random.key(0), ctx)
        return method.predict(params, state, task, inputs, ctx, mask=mask)["logits"]

    def padded(rows, value):
        return jnp.concatenate([rows, jnp.full((2, *rows.shape[1:]), value, rows.dtype)])

    support = Examples(padded(given.support.inputs, 30.0), padded(given.support.label, 1), jnp.arange(8) < 6)
    found = logits(support, padded(given.query.inputs, 20.0), jnp.arange(8) < 6)[:6]
    np.testing.assert_allclose(found, logits(given.support, given.query.inputs), rtol=1e-3, atol=1e-4)


def test_permuting_support_rows_and_naming_classes_otherwise_changes_no_answer():
    method, given = learner(), episode(jax.random.key(0))
    params, state = method.init(jax.random.key(2), given)  # the head is zero: no class is before another
    order, renamed = jnp.array([4, 0, 3, 5, 1, 2]), jnp.array([2, 0, 1])

    def logits(inputs, label):
        ctx = method.test_context
        task = method.adapt(params, state, Examples(inputs, label), jax.random.key(0), ctx)
        return method.predict(params, state, task, given.query.inputs, ctx)["logits"]

    wanted = logits(*given.support[:2])
    assert jnp.abs(wanted).max() > 1e-2
    np.testing.assert_allclose(logits(given.support.inputs[order], given.support.label[order]), wanted, atol=1e-5)
    np.testing.assert_allclose(
        logits(given.support.inputs, renamed[given.support.label])[:, renamed], wanted, atol=1e-5
    )


def test_it_starts_from_an_earlier_stages_encoder():
    method, given = learner(), episode(jax.random.key(0))
    before = MLP(widths=(6, 5)).init(jax.random.key(9), given.support.inputs)
    params, state = method.init(jax.random.key(2), given, before)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], before["params"])
    jax.tree.map(np.testing.assert_array_equal, state["encoder"], before["batch_stats"])
    assert not params["head"]["kernel"].any()


def test_running_statistics_move_by_the_mean_over_tasks():
    method = learner(inner_steps=0)
    tasks = [episode(jax.random.key(i)) for i in range(3)]
    params, state = start(method, tasks[0])
    keys = Keys(jax.random.split(jax.random.key(0), 3), jax.random.key(0))
    episodes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    _, moved, _ = meta_gradient(method)(params, state, episodes, keys, 0)
    kernel = params["encoder"]["Dense_0"]["kernel"]
    wanted = np.mean([0.1 * np.mean(given.query.inputs @ kernel, 0) for given in tasks], 0)
    np.testing.assert_allclose(moved["encoder"]["Norm_0"]["mean"], wanted, rtol=1e-4, atol=1e-6)


def temporary_bytes(steps, remat):
    """Memory of one compiled meta-gradient of one task; optimising the code would change the time, not the buffers."""
    method = maml(Conv4(width=8, readout="mean"), way=5, inner_steps=steps, remat=remat)
    given = episode_of(EpisodeSpec(way=5, shot=1, query=1), jnp.zeros((1, 28, 28, 1)))
    params, state = jax.eval_shape(lambda: method.init(jax.random.key(0), given))
    keys = jax.eval_shape(lambda: Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0)))
    lowered = jax.jit(meta_gradient(method, 1)).lower(params, state, one(given), keys, 0)
    return lowered.compile({"xla_backend_optimization_level": 0}).memory_analysis().temp_size_in_bytes


def test_fifty_recomputed_steps_take_at_most_twice_the_memory_of_five():
    assert temporary_bytes(50, True) <= 2 * temporary_bytes(5, False)
