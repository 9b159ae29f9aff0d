"""MAML: its meta-gradient, its limits and its symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import WAY, adapted, check_padding, classification, compiled, one_gradient, regression, slopes, start

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.meta_gradient import meta_gradient
from metarep_jax.types import Context, EpisodeSpec, Examples, Keys, episode_of

ENCODER = MLP(widths=(6, 5))


def learner(**how):
    return maml(ENCODER, way=WAY, **{"inner_lr": 0.3, "inner_steps": 2, **how})


@pytest.mark.parametrize("order", [1, 2])
def test_the_second_order_gradient_alone_is_the_finite_difference_in_float64(order):
    encoder = MLP(widths=(6, 5), dtype=jnp.float64)
    method = maml(encoder, way=WAY, inner_lr=0.3, inner_steps=2, order=order)
    found, wanted = slopes(method, classification())
    assert (found == pytest.approx(wanted, rel=1e-6)) is (order == 2)


def test_on_linear_regression_everything_is_closed_form():
    """w' = w − (2α/n) Xᵀ(Xw − y); the meta-gradient multiplies by I − (2α/n) XᵀX."""
    method, given = maml(Identity(), way=1, inner_lr=0.1, inner_steps=1, output="mean"), regression()
    params, state = start(method, given)
    grads, _, metrics = one_gradient(method, params, state, given)

    def columns(rows):
        return np.concatenate([np.asarray(rows.inputs, np.float64), np.ones((len(rows.inputs), 1))], 1)

    def joined(tree):
        return np.concatenate([tree["kernel"], tree["bias"][None]])

    weights = joined(params["head"])
    support, query, (ys, yq) = columns(given.support), columns(given.query), (given.support.label, given.query.label)
    moved = weights - 0.2 / 6 * support.T @ (support @ weights - np.asarray(ys))
    outer = 2 / 5 * query.T @ (query @ moved - np.asarray(yq))
    wanted = (np.eye(3) - 0.2 / 6 * support.T @ support) @ outer
    np.testing.assert_allclose(joined(grads["head"]), wanted, rtol=1e-4)
    assert float(metrics["loss"]) == pytest.approx(np.mean((query @ moved - np.asarray(yq)) ** 2), rel=1e-4)
    before = np.mean((support @ weights - np.asarray(ys)) ** 2)
    assert float(metrics["support_loss/0"]) == pytest.approx(before, rel=1e-4)
    assert set(metrics) == {"loss", "support_loss/0"}


def test_without_inner_steps_it_is_the_network_itself():
    method, given = learner(), classification()
    params, state = start(method, given)
    task, found = adapted(method, params, state, given, Context(inner_steps=0))
    jax.tree.map(np.testing.assert_array_equal, task["fast"], params)
    network = compiled(lambda variables, x: ENCODER.apply(variables, x, mutable=["batch_stats"])[0])
    features = np.asarray(network({"params": params["encoder"]}, given.query.inputs))
    np.testing.assert_allclose(found["features"], features, atol=1e-6)
    head = params["head"]
    np.testing.assert_allclose(found["logits"], features @ head["kernel"] + head["bias"], atol=1e-5)


def test_test_time_takes_its_own_number_of_steps():
    method, given = learner(inner_steps=1, test_steps=3), classification()
    params, state = start(method, given)

    def same(ctx, wanted):
        found = [adapted(method, params, state, given, which)[0]["fast"] for which in (ctx, wanted)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *found)

    same(method.test_context, Context(inner_steps=3))
    same(method.train_context, Context(inner_steps=1))


@pytest.mark.parametrize("norm", ["transductive", "support", "one_query", "running"])
def test_padding_of_support_and_queries_changes_no_answer(norm):
    check_padding(learner(), classification(), norm, steps=1)


def test_permuting_support_rows_and_naming_classes_otherwise_changes_no_answer():
    method, given = learner(), classification()
    params, state = start(method, given, noise=0)  # the head is zero: no class is before another
    order, renamed = np.array([4, 0, 3, 5, 1, 2]), np.array([2, 0, 1])
    x, y = np.asarray(given.support.inputs), np.asarray(given.support.label)

    @compiled
    def logits(inputs, label):
        ctx = method.test_context
        task = method.adapt(params, state, Examples(inputs, label), jax.random.key(0), ctx)
        return method.predict(params, state, task, given.query.inputs, ctx)["logits"]

    wanted = np.asarray(logits(x, y))
    assert np.abs(wanted).max() > 1e-2
    np.testing.assert_allclose(logits(x[order], y[order]), wanted, atol=1e-5)
    np.testing.assert_allclose(np.asarray(logits(x, renamed.astype(y.dtype)[y]))[:, renamed], wanted, atol=1e-5)


def test_it_starts_from_an_earlier_stages_encoder():
    method, given = learner(), classification()
    before = compiled(ENCODER.init)(jax.random.key(9), given.support.inputs)
    params, state = compiled(method.init)(jax.random.key(2), given, before)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], before["params"])
    jax.tree.map(np.testing.assert_array_equal, state["encoder"], before["batch_stats"])
    assert not np.asarray(params["head"]["kernel"]).any()


def test_running_statistics_move_by_the_mean_over_tasks():
    method = learner(inner_steps=0)
    tasks = [classification(seed) for seed in range(3)]
    params, state = start(method, tasks[0])
    keys = Keys(jax.random.split(jax.random.key(0), 3), jax.random.key(0))
    episodes = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *tasks)
    _, moved, _ = compiled(meta_gradient(method))(params, state, episodes, keys, 0)
    kernel = np.asarray(params["encoder"]["Dense_0"]["kernel"])
    wanted = np.mean([0.1 * np.mean(np.asarray(given.query.inputs) @ kernel, 0) for given in tasks], 0)
    np.testing.assert_allclose(moved["encoder"]["Norm_0"]["mean"], wanted, rtol=1e-4, atol=1e-6)


def temporary_bytes(steps, remat):
    """Memory of one compiled meta-gradient of one task; optimising the code would change the time, not the buffers."""
    method = maml(MLP(widths=(8, 8)), way=5, inner_steps=steps, remat=remat)
    given = jax.eval_shape(lambda: episode_of(EpisodeSpec(way=5, shot=40, query=1), jnp.zeros((1, 8))))
    tasks = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), given)
    params, state = jax.eval_shape(method.init, jax.random.key(0), given)
    keys = jax.eval_shape(lambda: Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0)))
    lowered = jax.jit(meta_gradient(method, 1)).lower(params, state, tasks, keys, 0)
    return lowered.compile({"xla_backend_optimization_level": 0}).memory_analysis().temp_size_in_bytes


def test_fifty_recomputed_steps_take_at_most_twice_the_memory_of_five():
    assert temporary_bytes(50, True) <= 2 * temporary_bytes(5, False)
