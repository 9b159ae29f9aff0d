"""MoCo: InfoNCE with a queue, the queue itself, shuffled batch norm, and the momentum teacher."""

from functools import cache, partial

import jax
import numpy as np
import pytest
from objective_checks import BATCH, KEYS, SIZE, all_devices, check_devices, encoder, loss_of, noisy, plain, started

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain import info_nce, moco, moco_v3
from metarep_jax.pretrain.chain import apply_to_views, chain
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.queue import Queue, check_queue, enqueue
from metarep_jax.pretrain.shuffled_norm import apply_in_groups, shuffle, unsynchronised
from metarep_jax.pretrain.teacher import follow, momentum_at
from metarep_jax.pretrain.views import make_views

SMALL = {"hidden": 6, "out": 4}
compiled = jax.jit(info_nce, static_argnames="temperature")


@all_devices
@pytest.mark.parametrize("make", [partial(moco, queue=2 * SIZE), moco_v3])
def test_any_number_of_devices_computes_the_same_update(make, count):
    check_devices(lambda axis: make(encoder(axis), augment=noisy, axis_name=axis, **SMALL), count)


def test_info_nce_of_a_known_gram_matrix_with_a_queue():
    query = np.array([[1.0, 0.0], [0.0, 1.0]])
    key = np.array([[0.6, 0.8], [1.0, 0.0]])  # cosines 0.6 and 0 to their queries
    queue = np.array([[-1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    loss, metrics = compiled(query, key, queue, temperature=0.5)
    first = -0.6 / 0.5 + np.log(np.exp(np.array([0.6, -1.0, 0.0, 0.8]) / 0.5).sum())
    second = 0.0 + np.log(np.exp(np.array([0.0, 0.0, 1.0, 0.6]) / 0.5).sum())
    assert loss == pytest.approx((first + second) / 2, rel=1e-6)
    assert metrics["contrastive_accuracy"] == 0


def test_info_nce_of_a_known_gram_matrix_within_the_batch():
    query, key = np.eye(3, dtype=np.float32), np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, -1]], np.float32)
    gram = query @ key.T / 0.2
    wanted = np.mean(np.log(np.exp(gram).sum(1)) - np.diag(gram))
    loss, metrics = compiled(query, key, temperature=0.2)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert metrics["contrastive_accuracy"] == pytest.approx(2 / 3)


def test_info_nce_of_equal_embeddings_is_the_log_of_the_candidates():
    rows, queue = np.ones((4, 1), np.float32), np.ones((7, 1), np.float32)
    assert compiled(rows, rows, queue, temperature=0.3)[0] == pytest.approx(np.log(8), rel=1e-6)
    assert compiled(rows, rows, temperature=0.3)[0] == pytest.approx(np.log(4), rel=1e-6)


def test_the_queue_forgets_its_oldest_rows_first():
    queue, add = Queue(np.zeros((6, 1), np.float32), np.int32(0)), jax.jit(enqueue)
    for batch in range(1, 5):
        queue = add(queue, np.full((2, 1), batch, np.float32))
    assert np.ravel(queue.rows).tolist() == [4, 4, 2, 2, 3, 3]
    assert queue.place == 2


@pytest.mark.parametrize(("size", "batch", "fits"), [(10, 4, "8 or 12"), (3, 4, "4"), (0, 4, "4")])
def test_a_queue_that_the_batch_does_not_divide_is_refused(size, batch, fits):
    with pytest.raises(ValueError, match=f"queue of {size} .* batches of {batch}: .* take a queue of {fits}$"):
        check_queue(size, batch)


def test_moco_refuses_a_queue_that_the_batch_does_not_divide_before_it_trains():
    objective = moco(encoder(), augment=noisy, queue=SIZE + 1, **SMALL)
    with pytest.raises(ValueError, match=f"queue of {SIZE + 1} embeddings"):
        jax.eval_shape(objective.init, jax.random.key(0), BATCH)


def test_mocos_first_loss_without_views_has_positives_of_cosine_one():
    objective = moco(encoder(norm="none"), augment=plain, queue=2 * SIZE, temperature=0.5, **SMALL)
    params, state = started(objective)
    state["teacher"] = params
    value, after, _ = loss_of(objective, params, state)
    net = chain(encoder=encoder(norm="none"), projector=Head((6, 4), norm="none"))
    z = np.asarray(jax.jit(net.apply)(params, {"encoder": {}, "projector": {}}, BATCH["inputs"])[0]["projector"])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    rows, before = np.asarray(after["queue"].rows), np.asarray(state["queue"].rows)
    negatives = np.exp(z @ before.T / 0.5).sum(1)
    assert value == pytest.approx(np.mean(np.log(np.exp(1 / 0.5) + negatives) - 1 / 0.5), rel=1e-5)
    np.testing.assert_allclose(rows[:SIZE], z, atol=1e-6)
    np.testing.assert_array_equal(rows[SIZE:], before[SIZE:])
    assert after["queue"].place == SIZE


@pytest.mark.parametrize("make", [partial(moco, queue=2 * SIZE), moco_v3])
def test_no_gradient_reaches_the_teacher(make):
    objective = make(encoder(), augment=noisy, **SMALL)
    params, state = started(objective)

    def of_teacher(teacher):
        return objective.loss(params, {**state, "teacher": teacher}, BATCH, KEYS, 0)[0]

    grads = jax.jit(jax.grad(of_teacher))(state["teacher"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.device_get(grads)))


def test_moco_v3_of_equal_embeddings_is_four_temperatures_times_the_log_of_the_batch():
    objective = moco_v3(encoder(), augment=noisy, temperature=0.3, **SMALL)
    params, state = started(objective)
    zeros = jax.tree.map(np.zeros_like, (params, state["teacher"]))
    value, _, _ = loss_of(objective, zeros[0], {**state, "teacher": zeros[1]})
    assert value == pytest.approx(4 * 0.3 * np.log(SIZE), rel=1e-5)


def test_moco_v3_finds_each_views_key_of_the_other_view_among_the_batch():
    objective = moco_v3(encoder(), augment=noisy, temperature=0.3, **SMALL)
    params, state = started(objective)
    projector = Head((6, 6, 4), last_norm=True)
    short = chain(encoder=encoder(), projector=projector)
    net = chain(encoder=encoder(), projector=projector, predictor=Head((6, 4), last_norm=True))

    @jax.jit
    def outputs(params, teacher):
        views = make_views(noisy, BATCH, KEYS)
        student = apply_to_views(net, params, state, views)[0]["predictor"]
        return unit_rows(student), unit_rows(apply_to_views(short, teacher, state, views)[0]["projector"])

    q, k = (np.asarray(rows, np.float64) for rows in outputs(params, state["teacher"]))
    wanted = 0.0
    for query, key in ((q[0], k[1]), (q[1], k[0])):
        logits = query @ key.T / 0.3
        wanted += 2 * 0.3 * np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))
    assert loss_of(objective, params, state)[0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("devices", [1, 4])
def test_shuffled_rows_are_a_permutation_and_go_back_to_their_places(devices):
    rows = np.arange(8, dtype=np.float32).reshape(devices, -1, 1)

    def one(rows):
        shuffled, back = shuffle(jax.random.key(1), rows, "device")
        return shuffled, back(shuffled), jax.random.permutation(jax.random.key(1), 8)

    shuffled, restored, orders = map(np.asarray, jax.jit(jax.vmap(one, axis_name="device"))(rows))
    order = orders[0]
    assert order.tolist() != list(range(8))
    np.testing.assert_array_equal(shuffled.reshape(-1), order)
    np.testing.assert_array_equal(restored, rows)


NET = chain(encoder=encoder())


@cache
def start():
    """Params and state of ``NET``."""
    return jax.jit(NET.init)(jax.random.key(0), BATCH)


def in_groups(groups):
    """Outputs and moved state."""
    return jax.jit(partial(apply_in_groups, NET, groups=groups, axis_name=None))(*start(), BATCH["inputs"])


def test_groups_are_normalised_each_by_itself_and_their_averages_averaged():
    outputs, moved = in_groups(4)
    groups = np.reshape(np.asarray(BATCH["inputs"]), (4, SIZE // 4, -1))
    parts, states = jax.device_get(jax.jit(jax.vmap(NET.apply, (None, None, 0)))(*start(), groups))
    np.testing.assert_allclose(outputs["encoder"], np.concatenate(parts["encoder"]), atol=1e-5)
    wanted = jax.tree.map(lambda leaf: leaf.mean(0), states)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), moved, wanted)


def test_one_group_is_ordinary_batch_norm():
    wanted = jax.jit(NET.apply)(*start(), BATCH["inputs"])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), in_groups(1), wanted)


def test_groups_at_once_and_one_after_the_other_give_the_same(monkeypatch):
    found = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found.append(in_groups(4))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *found)


def test_groups_that_do_not_divide_are_refused():
    params, state = start()
    whole = partial(apply_in_groups, NET, params, state, groups=5, axis_name=None)
    with pytest.raises(ValueError, match=rf"5 groups .* 1 devices and a global batch of {SIZE}"):
        jax.eval_shape(whole, BATCH["inputs"])
    two = jax.vmap(partial(apply_in_groups, NET, params, state, groups=3, axis_name="device"), axis_name="device")
    with pytest.raises(ValueError, match=r"3 groups .* 2 devices"):
        jax.eval_shape(two, np.reshape(np.asarray(BATCH["inputs"]), (2, SIZE // 2, -1)))


def test_an_encoder_loses_its_axis_where_groups_are_normalised():
    assert unsynchronised(encoder("device")).axis_name is None
    assert unsynchronised(encoder()) == encoder()


def test_the_teacher_after_k_updates_has_its_closed_form():
    params = {"encoder": np.array([2.0, -1.0]), "projector": np.float32(3), "predictor": np.float32(9)}
    start = {"encoder": np.array([0.0, 1.0]), "projector": np.float32(-3)}
    move = follow(0.9)

    @jax.jit
    def moved(params, state):
        for step in range(5):
            kept, state = move(params, state, step)
            assert kept is params
        return state

    state = moved(params, {"teacher": start, "queue": np.array(7)})
    assert state["queue"] == 7
    wanted = {name: params[name] + 0.9**5 * (start[name] - params[name]) for name in start}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), state["teacher"], wanted)


def test_the_teachers_momentum_rises_to_one_along_a_cosine():
    found = jax.jit(jax.vmap(lambda step: momentum_at(step, 0.9, 100)))(np.array([0, 50, 100, 130]))
    np.testing.assert_allclose(found, [0.9, 0.95, 1.0, 1.0], rtol=1e-6)
    assert float(momentum_at(77, 0.9, None)) == pytest.approx(0.9)


@pytest.mark.parametrize("setting", [{"temperature": 0.0}, {"queue": 0}, {"groups": 0}, {"momentum": 1.0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=f"moco: {next(iter(setting))} must be"):
        moco(encoder(), augment=noisy, **setting)


def test_the_teacher_starts_as_the_student_and_given_encoder_parameters_are_taken_over():
    objective = moco(encoder(), augment=noisy, queue=2 * SIZE, **SMALL)

    @jax.jit
    def start():
        given = encoder().init(jax.random.key(1), BATCH["inputs"])
        return given, objective.init(jax.random.key(0), BATCH, given)

    given, (params, state) = start()
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], given["params"])
    jax.tree.map(np.testing.assert_array_equal, state["teacher"], params)
