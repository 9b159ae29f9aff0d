"""The losses, and the mean over tasks: neither chunks nor devices change it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarep_jax.encoders.mlp import MLP
from metarep_jax.losses import accuracy
from metarep_jax.metalearn.base import cross_entropy, squared_error
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.meta_gradient import mean_over_tasks, meta_gradient
from metarep_jax.train.parallel import map_step, mean_over_devices, replicate, shard
from metarep_jax.types import Episode, Examples, Keys

WAY, TASKS = 3, 8
MASK = jnp.array([True, True, False])


def close(found, wanted, rtol=2e-5, atol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, wanted)


def test_cross_entropy_of_equal_logits_is_log_of_the_classes():
    query = Examples(jnp.zeros((4, 1)), jnp.arange(4))
    assert float(cross_entropy({"logits": jnp.ones((4, 5))}, query)) == pytest.approx(np.log(5))


def test_rows_that_do_not_count_enter_no_loss():
    logits = jnp.array([[2.0, 0], [0, 1], [jnp.nan, jnp.inf]])
    query = Examples(jnp.zeros((3, 1)), jnp.array([0, 0, 1]), MASK)
    wanted = (np.log1p(np.exp(-2)) + np.log1p(np.exp(1))) / 2
    assert float(cross_entropy({"logits": logits}, query)) == pytest.approx(wanted, rel=1e-6)
    assert float(accuracy(logits, query.label, query.mask)) == 0.5
    targets = Examples(jnp.zeros((3, 1)), jnp.array([[1.0, 0], [0, 0], [9, 9]]), MASK)
    assert float(squared_error({"mean": jnp.array([[0.0, 0], [0, 2], [0, 0]])}, targets)) == pytest.approx(
        (0.5 + 2) / 2
    )


@pytest.fixture(scope="module")
def setting():
    learner = maml(MLP(widths=(6,)), way=WAY, inner_steps=1)
    keys = jax.random.split(jax.random.key(0), 4)

    def rows(key, each):
        label = jnp.tile(jnp.repeat(jnp.arange(WAY), each), (TASKS, 1))
        return Examples(jax.random.normal(key, (*label.shape, 4)), label)

    episodes = Episode(rows(keys[0], 2), rows(keys[1], 3))
    params, state = learner.init(keys[2], jax.tree.map(lambda leaf: leaf[0], episodes))
    params["head"]["kernel"] = jax.random.normal(keys[3], params["head"]["kernel"].shape)
    return learner, params, state, episodes, Keys(jax.random.split(keys[3], TASKS), keys[3])


def test_the_mean_is_that_of_the_tasks_one_by_one(setting):
    learner, params, state, episodes, keys = setting
    one = jax.jit(
        lambda episodes, example: meta_gradient(learner)(params, state, episodes, Keys(example, keys.shared), 0)
    )
    given = (episodes, keys.example)
    alone = [one(*jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], given)) for i in range(TASKS)]
    wanted = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), 0), *alone)
    found = jax.jit(meta_gradient(learner, 3))(params, state, episodes, keys, 0)
    close(found, wanted)
    assert set(found[2]) == {"loss", "accuracy", "support_loss/0"}


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_chunks_change_nothing(setting, chunk):
    learner, *given = setting
    wanted = jax.jit(meta_gradient(learner, TASKS))(*given, 0)
    close(jax.jit(meta_gradient(learner, chunk))(*given, 0), wanted)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_devices_change_nothing(setting, devices):
    learner, params, state, episodes, keys = setting
    wanted, *_ = jax.jit(meta_gradient(learner, 1))(params, state, episodes, keys, 0)
    optimiser = optax.sgd(1.0)

    def update(params, source):
        episodes, example = source
        grads, _, metrics = mean_over_devices(
            meta_gradient(learner)(params, state, episodes, Keys(example, example[0]), 0)
        )
        return optax.apply_updates(params, optimiser.update(grads, optimiser.init(params))[0]), metrics

    used = jax.devices()[:devices]
    parts = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), (episodes, keys.example))
    moved, _ = map_step(update, used)(replicate(params, used), shard(parts, used))
    for device in range(devices):
        found = jax.tree.map(lambda before, after, i=device: before - after[i], params, moved)
        close(found, wanted, rtol=1e-4, atol=1e-5)


def test_permuting_tasks_changes_nothing(setting):
    learner, params, state, episodes, keys = setting
    step = jax.jit(meta_gradient(learner, 2))
    order = jnp.array([3, 1, 7, 0, 2, 6, 5, 4])
    mixed = jax.tree.map(lambda leaf: leaf[order], episodes)
    close(step(params, state, mixed, keys, 0), step(params, state, episodes, keys, 0))


def test_a_state_that_no_task_moves_stays_exactly():
    state = {"mean": jnp.array([0.1, 1 / 3])}

    def task_loss(params, state, episode, key):
        del key
        return params * episode.sum(), (state, {})

    _, found, _ = mean_over_tasks(task_loss, 2)(jnp.float32(1.0), state, jnp.ones((7, 1)), jnp.zeros(7))
    np.testing.assert_array_equal(found["mean"], state["mean"])


def test_a_chunk_of_no_task_is_refused():
    with pytest.raises(ValueError, match="at least 1 at a time, got chunk=0"):
        mean_over_tasks(lambda *args: args, 0)
