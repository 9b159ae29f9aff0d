"""PsCo: the tasks it makes of a batch and a queue, and their loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_checks import BATCH, KEYS, SIZE, all_devices, check_devices, encoder, loss_of, noisy, started

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain import psco
from metarep_jax.pretrain.chain import chain
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.psco import pseudo_support, pseudo_task
from metarep_jax.pretrain.views import make_views

SMALL = {"hidden": 6, "out": 4, "queue": 2 * SIZE}
task = jax.jit(pseudo_task, static_argnames="temperature")


@all_devices
def test_any_number_of_devices_computes_the_same_update(count):
    check_devices(lambda axis: psco(encoder(axis), augment=noisy, axis_name=axis, shot=2, **SMALL), count)


def support_of(key, queue, epsilon, iterations):
    """The row of the queue that is each key's only support."""
    found = pseudo_support(jnp.asarray(key), jnp.asarray(queue), 1, epsilon, iterations)
    return np.ravel(np.asarray(found)).tolist()


def test_keys_that_lie_in_the_queue_find_themselves():
    queue = np.asarray(jax.random.normal(jax.random.key(0), (12, 6)))
    queue = queue / np.linalg.norm(queue, axis=1, keepdims=True)
    assert support_of(queue[[7, 2, 11]], queue, 0.05, 3) == [7, 2, 11]


def test_a_row_of_the_queue_that_is_close_to_all_serves_few():
    angles = np.deg2rad([-2.0, 2.0])
    key = np.stack([np.cos(angles), np.sin(angles)], -1)
    near = np.deg2rad([1.0, -20.0])  # both keys are nearest to the first row
    queue = np.stack([np.cos(near), np.sin(near)], -1)
    assert np.argmax(key @ queue.T, axis=1).tolist() == [0, 0]
    assert support_of(key, queue, 0.001, 100) == [1, 0]


def test_the_loss_of_a_task_at_right_angles_has_its_closed_form():
    way, shot = 3, 2
    support = np.repeat(np.eye(way)[:, None], shot, axis=1)
    loss, accuracy = task(np.eye(way), support, np.arange(way), temperature=0.5)
    # of six support embeddings two are at cosine 1 and four at 0; each of the two has half of what the two have
    assert loss == pytest.approx(np.log(2 * np.exp(2) + 4) - 2, rel=1e-5)
    assert accuracy == 1
    _, accuracy = task(np.eye(way), support, (np.arange(way) + 1) % way, temperature=0.5)
    assert accuracy == 0


def test_a_task_equals_the_written_out_definition():
    random = np.random.default_rng(1)
    query, support = random.normal(size=(4, 5)), random.normal(size=(4, 3, 5))
    label = np.array([2, 0, 3, 1])
    loss, _ = task(query, support, label, temperature=0.8)
    s = np.einsum("qd,wkd->qwk", query, support) / 0.8
    terms = [np.log(np.exp(s[i]).sum()) - s[i, label[i]].mean() for i in range(4)]
    assert loss == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_loss_is_the_tasks_and_mocos_and_the_queue_takes_the_keys():
    settings = {"temperature": 0.3, "task_temperature": 0.7, "shot": 2, "epsilon": 0.05, "iterations": 3}
    objective = psco(encoder(), augment=noisy, **settings, **SMALL)
    params, state = started(objective)
    net = chain(encoder=encoder(), projector=Head((6, 4), last_norm=True), predictor=Head((6, 4)))
    short = chain(encoder=encoder(), projector=Head((6, 4), last_norm=True))
    queue = state["queue"].rows

    @jax.jit
    def by_hand(params, teacher):
        query_views, key_views = make_views(noisy, BATCH, KEYS)
        query = unit_rows(net.apply(params, state, query_views)[0]["predictor"])
        key = unit_rows(short.apply(teacher, state, key_views)[0]["projector"])
        support = queue[pseudo_support(key, queue, 2, 0.05, 3)]
        logits = jnp.concatenate([jnp.sum(query * key, 1, keepdims=True), query @ queue.T], axis=1) / 0.3
        return pseudo_task(query, support, jnp.arange(SIZE), temperature=0.7)[0], -jax.nn.log_softmax(logits)[
            :, 0
        ].mean()

    of_task, contrast = map(float, by_hand(params, state["teacher"]))
    value, after, metrics = loss_of(objective, params, state)
    assert metrics["task_loss"] == pytest.approx(of_task, rel=1e-5)
    assert value == pytest.approx(of_task + contrast, rel=1e-5)
    rows, before = np.asarray(after["queue"].rows), np.asarray(queue)
    assert not np.array_equal(rows[:SIZE], before[:SIZE])
    np.testing.assert_array_equal(rows[SIZE:], before[SIZE:])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_no_gradient_reaches_the_teacher():
    objective = psco(encoder(), augment=noisy, **SMALL)
    params, state = started(objective)

    def of_teacher(teacher):
        return objective.loss(params, {**state, "teacher": teacher}, BATCH, KEYS, 0)[0]

    grads = jax.jit(jax.grad(of_teacher))(state["teacher"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.device_get(grads)))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"shot": 0}, "psco: shot must be positive, got 0"),
        ({"shot": 9, "queue": 8}, "9 shots cannot be taken from a queue of 8"),
        ({"task_temperature": -1.0}, "psco: task_temperature must be positive"),
        ({"momentum": -0.1}, "psco: momentum must be in"),
    ],
)
def test_settings_out_of_range_are_refused(setting, said):
    with pytest.raises(ValueError, match=said):
        psco(encoder(), augment=noisy, **setting)


def test_a_queue_that_the_batch_does_not_divide_is_refused():
    objective = psco(encoder(), augment=noisy, hidden=6, out=4, queue=SIZE - 1)
    with pytest.raises(ValueError, match=f"queue of {SIZE - 1} embeddings .* batches of {SIZE}"):
        jax.eval_shape(objective.init, jax.random.key(0), BATCH)
