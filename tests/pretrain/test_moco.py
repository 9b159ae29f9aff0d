"""MoCo: InfoNCE with a queue, the queue itself, shuffled batch norm, and the momentum teacher."""

from functools import partial

import jax
import jax.numpy as jnp
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


@all_devices
@pytest.mark.parametrize("make", [partial(moco, queue=2 * SIZE), moco_v3])
def test_any_number_of_devices_computes_the_same_update(make, count):
    check_devices(lambda axis: make(encoder(axis), augment=noisy, axis_name=axis, **SMALL), count)


def test_info_nce_of_a_known_gram_matrix_with_a_queue():
    query = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    key = jnp.array([[0.6, 0.8], [1.0, 0.0]])  # cosines 0.6 and 0 to their queries
    queue = jnp.array([[-1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    loss, metrics = info_nce(query, key, queue, temperature=0.5)
    first = -0.6 / 0.5 + np.log(np.exp(np.array([0.6, -1.0, 0.0, 0.8]) / 0.5).sum())
    second = 0.0 + np.log(np.exp(np.array([0.0, 0.0, 1.0, 0.6]) / 0.5).sum())
    assert loss == pytest.approx((first + second) / 2, rel=1e-6)
    assert metrics["contrastive_accuracy"] == 0


def test_info_nce_of_a_known_gram_matrix_within_the_batch():
    query, key = jnp.eye(3), jnp.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])
    gram = np.asarray(query @ key.T) / 0.2
    wanted = np.mean(np.log(np.exp(gram).sum(1)) - np.diag(gram))
    loss, metrics = info_nce(query, key, temperature=0.2)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert metrics["contrastive_accuracy"] == pytest.approx(2 / 3)


def test_info_nce_of_equal_embeddings_is_the_log_of_the_candidates():
    rows = jnp.ones((4, 1))
    assert info_nce(rows, rows, jnp.ones((7, 1)), temperature=0.3)[0] == pytest.approx(np.log(8), rel=1e-6)
    assert info_nce(rows, rows, temperature=0.3)[0] == pytest.approx(np.log(4), rel=1e-6)


def test_the_queue_forgets_its_oldest_rows_first():
    queue = Queue(jnp.zeros((6, 1)), jnp.int32(0))
    for batch in range(1, 5):
        queue = enqueue(queue, jnp.full((2, 1), 1.0 * batch))
    assert queue.rows[:, 0].tolist() == [4, 4, 2, 2, 3, 3]
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
    z = np.asarray(unit_rows(net.apply(params, {"encoder": {}, "projector": {}}, BATCH["inputs"])[0]["projector"]))
    negatives = np.exp(z @ np.asarray(state["queue"].rows).T / 0.5).sum(1)
    assert value == pytest.approx(np.mean(np.log(np.exp(1 / 0.5) + negatives) - 1 / 0.5), rel=1e-5)
    np.testing.assert_allclose(after["queue"].rows[:SIZE], z, atol=1e-6)
    np.testing.assert_array_equal(after["queue"].rows[SIZE:], state["queue"].rows[SIZE:])
    assert after["queue"].place == SIZE


@pytest.mark.parametrize("make", [partial(moco, queue=2 * SIZE), moco_v3])
def test_no_gradient_reaches_the_teacher(make):
    objective = make(encoder(), augment=noisy, **SMALL)
    params, state = started(objective)

    def of_teacher(teacher):
        return objective.loss(params, {**state, "teacher": teacher}, BATCH, KEYS, 0)[0]

    grads = jax.jit(jax.grad(of_teacher))(state["teacher"])
    assert all(not leaf.any() for leaf in jax.tree.leaves(grads))


def test_moco_v3_of_equal_embeddings_is_four_temperatures_times_the_log_of_the_batch():
    objective = moco_v3(encoder(), augment=noisy, temperature=0.3, **SMALL)
    params, state = started(objective)
    zeros = jax.tree.map(jnp.zeros_like, (params, state["teacher"]))
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
    rows = jnp.arange(8.0).reshape(devices, -1, 1)

    def one(rows):
        shuffled, back = shuffle(jax.random.key(1), rows, "device")
        return shuffled, back(shuffled)

    shuffled, restored = jax.vmap(one, axis_name="device")(rows)
    order = jax.random.permutation(jax.random.key(1), 8)
    assert order.tolist() != list(range(8))
    np.testing.assert_array_equal(shuffled.reshape(-1), order)
    np.testing.assert_array_equal(restored, rows)


def test_groups_are_normalised_each_by_itself_and_their_averages_averaged():
    net = chain(encoder=encoder())
    params, state = net.init(jax.random.key(0), BATCH)
    outputs, moved = apply_in_groups(net, params, state, BATCH["inputs"], groups=4, axis_name=None)
    parts = [net.apply(params, state, BATCH["inputs"][at : at + SIZE // 4]) for at in range(0, SIZE, SIZE // 4)]
    np.testing.assert_allclose(outputs["encoder"], jnp.concatenate([part[0]["encoder"] for part in parts]), atol=1e-5)
    wanted = jax.tree.map(lambda *leaves: sum(leaves) / 4, *(part[1] for part in parts))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), moved, wanted)


def test_one_group_is_ordinary_batch_norm():
    net = chain(encoder=encoder())
    params, state = net.init(jax.random.key(0), BATCH)
    found = apply_in_groups(net, params, state, BATCH["inputs"], groups=1, axis_name=None)
    wanted = net.apply(params, state, BATCH["inputs"])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, wanted)


def test_groups_at_once_and_one_after_the_other_give_the_same(monkeypatch):
    net = chain(encoder=encoder())
    params, state = net.init(jax.random.key(0), BATCH)
    found = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found.append(apply_in_groups(net, params, state, BATCH["inputs"], groups=4, axis_name=None))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *found)


def test_groups_that_do_not_divide_are_refused():
    net = chain(encoder=encoder())
    params, state = net.init(jax.random.key(0), BATCH)
    with pytest.raises(ValueError, match=rf"5 groups .* 1 devices and a global batch of {SIZE}"):
        apply_in_groups(net, params, state, BATCH["inputs"], groups=5, axis_name=None)
    two = jax.vmap(partial(apply_in_groups, net, params, state, groups=3, axis_name="device"), axis_name="device")
    with pytest.raises(ValueError, match=r"3 groups .* 2 devices"):
        jax.eval_shape(two, BATCH["inputs"].reshape(2, SIZE // 2, -1))


def test_an_encoder_loses_its_axis_where_groups_are_normalised():
    assert unsynchronised(encoder("device")).axis_name is None
    assert unsynchronised(encoder()) == encoder()


def test_the_teacher_after_k_updates_has_its_closed_form():
    params = {"encoder": jnp.array([2.0, -1.0]), "projector": jnp.array(3.0), "predictor": jnp.array(9.0)}
    start = {"encoder": jnp.array([0.0, 1.0]), "projector": jnp.array(-3.0)}
    state, move = {"teacher": start, "queue": jnp.array(7)}, follow(0.9)
    for step in range(5):
        kept, state = move(params, state, step)
    assert kept is params
    assert state["queue"] == 7
    wanted = {name: params[name] + 0.9**5 * (start[name] - params[name]) for name in start}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), state["teacher"], wanted)


def test_the_teachers_momentum_rises_to_one_along_a_cosine():
    steps = [0, 50, 100, 130]
    found = [float(momentum_at(step, 0.9, 100)) for step in steps]
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
