"""The losses, and the mean over tasks: neither chunks nor devices change it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import compiled

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
    query = Examples(np.zeros((4, 1), np.float32), np.arange(4))
    assert float(compiled(cross_entropy)({"logits": np.ones((4, 5), np.float32)}, query)) == pytest.approx(np.log(5))


def test_rows_that_do_not_count_enter_no_loss():
    logits, inputs = jnp.array([[2.0, 0], [0, 1], [jnp.nan, jnp.inf]]), jnp.array([[0.0]] * 3)
    query = Examples(inputs, jnp.array([0, 0, 1]), MASK)
    wanted = (np.log1p(np.exp(-2)) + np.log1p(np.exp(1))) / 2
    assert float(compiled(cross_entropy)({"logits": logits}, query)) == pytest.approx(wanted, rel=1e-6)
    assert float(compiled(accuracy)(logits, query.label, query.mask)) == 0.5
    targets = Examples(inputs, jnp.array([[1.0, 0], [0, 0], [9, 9]]), MASK)
    mean = jnp.array([[0.0, 0], [0, 2], [0, 0]])
    assert float(compiled(squared_error)({"mean": mean}, targets)) == pytest.approx((0.5 + 2) / 2)


@pytest.fixture(scope="module")
def setting():
    learner = maml(MLP(widths=(6,)), way=WAY, inner_steps=1)
    draw, key = np.random.default_rng(0).standard_normal, jax.random.key(3)

    def rows(each):
        label = np.tile(np.repeat(np.arange(WAY, dtype=np.int32), each), (TASKS, 1))
        return Examples(draw((*label.shape, 4)).astype(np.float32), label)

    episodes = Episode(rows(2), rows(3))
    params, state = compiled(learner.init)(jax.random.key(2), jax.tree.map(lambda leaf: leaf[0], episodes))
    params["head"]["kernel"] = draw(params["head"]["kernel"].shape).astype(np.float32)
    return learner, params, state, episodes, Keys(jax.random.split(key, TASKS), key)


@functools.cache
def by_chunks(learner, chunk):
    """The meta-gradient of so many tasks at a time, compiled."""
    return compiled(meta_gradient(learner, chunk))


def test_the_mean_is_that_of_the_tasks_one_by_one(setting):
    learner, params, state, episodes, keys = setting

    @compiled
    def one(task):
        example, episode = jax.tree.map(
            lambda leaf: leaf[task][None], (keys.example, jax.tree.map(jnp.asarray, episodes))
        )
        return meta_gradient(learner)(params, state, episode, Keys(example, keys.shared), 0)

    alone = [one(task) for task in range(TASKS)]
    wanted = jax.tree.map(lambda *leaves: np.mean(np.stack(leaves), 0), *alone)
    found = by_chunks(learner, 3)(params, state, episodes, keys, 0)
    close(found, wanted)
    assert set(found[2]) == {"loss", "accuracy", "support_loss/0"}


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_chunks_change_nothing(setting, chunk):
    learner, *given = setting
    wanted = by_chunks(learner, TASKS)(*given, 0)
    close(by_chunks(learner, chunk)(*given, 0), wanted)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_devices_change_nothing(setting, devices):
    learner, params, state, episodes, keys = setting
    wanted, *_ = by_chunks(learner, 1)(params, state, episodes, keys, 0)
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
    before, after = jax.tree.map(np.asarray, (params, moved))
    for device in range(devices):
        found = jax.tree.map(lambda before, after, i=device: before - after[i], before, after)
        close(found, wanted, rtol=1e-4, atol=1e-5)


def test_permuting_tasks_changes_nothing(setting):
    learner, params, state, episodes, keys = setting
    step = by_chunks(learner, 2)
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    mixed = jax.tree.map(lambda leaf: leaf[order], episodes)
    close(step(params, state, mixed, keys, 0), step(params, state, episodes, keys, 0))


def test_a_state_that_no_task_moves_stays_exactly():
    state = {"mean": np.array([0.1, 1 / 3], np.float32)}

    def task_loss(params, state, episode, key):
        del key
        return params * episode.sum(), (state, {})

    ones, keys = np.ones((7, 1), np.float32), np.zeros(7, np.float32)
    _, found, _ = compiled(mean_over_tasks(task_loss, 2))(np.float32(1.0), state, ones, keys)
    np.testing.assert_array_equal(found["mean"], state["mean"])


def test_a_chunk_of_no_task_is_refused():
    with pytest.raises(ValueError, match="at least 1 at a time, got chunk=0"):
        mean_over_tasks(lambda *args: args, 0)
