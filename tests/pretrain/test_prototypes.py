"""SwAV and DINO: Sinkhorn's balance, swapped predictions over crops, centring and sharpening."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_checks import BATCH, KEYS, SIZE, all_devices, check_devices, encoder, loss_of, noisy, started

from metarep_jax.pretrain import dino, swav
from metarep_jax.pretrain.chain import apply_to_views, chain
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.sinkhorn import sinkhorn
from metarep_jax.pretrain.views import make_views, swapped_cross_entropy

SMALL = {"hidden": 6, "out": 4, "prototypes": 8}
MULTI_CROP = {"local_augment": noisy, "local_crops": 2}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@all_devices
@pytest.mark.parametrize("make", [partial(swav, **MULTI_CROP), partial(dino, **MULTI_CROP)])
def test_any_number_of_devices_computes_the_same_update(make, count):
    check_devices(lambda axis: make(encoder(axis), augment=noisy, axis_name=axis, **SMALL), count)


def test_sinkhorn_gives_every_row_one_and_every_column_its_share():
    found = np.asarray(sinkhorn(jnp.asarray(normal(0, 12, 4)), epsilon=0.5, iterations=100))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.sum(0), 12 / 4, rtol=1e-4)


def test_sinkhorn_scales_rows_and_columns_of_the_exponentials():
    scores = normal(1, 5, 3)
    found = np.log(np.asarray(sinkhorn(jnp.asarray(scores), epsilon=0.7, iterations=50))) - scores / 0.7
    rank_one = found - found.mean(0) - found.mean(1, keepdims=True) + found.mean()  # log(u_i v_j) leaves nothing
    np.testing.assert_allclose(rank_one, 0, atol=1e-4)


def test_sinkhorn_splits_what_prefers_the_same_column():
    hub = np.array([[1.0, 0.0], [0.9, 0.0], [0.2, 0.0], [0.1, 0.0]])  # all prefer the first
    found = sinkhorn(jnp.asarray(hub), epsilon=0.01, iterations=2000)
    np.testing.assert_allclose(found, [[1, 0], [1, 0], [0, 1], [0, 1]], atol=1e-3)


def test_sinkhorn_takes_scores_of_any_size():
    assert np.isfinite(np.asarray(sinkhorn(jnp.array([[1e3, -1e3], [5e2, 1e3]]), epsilon=0.05))).all()


def test_sinkhorn_refuses_settings_out_of_range():
    with pytest.raises(ValueError, match=r"epsilon must be positive and iterations at least 1, got 0.0, 3"):
        sinkhorn(jnp.asarray(np.ones((2, 2))), epsilon=0.0)


def test_swapped_predictions_average_over_pairs_of_different_views():
    target, logp = np.exp(normal(2, 2, 3, 4)), normal(3, 4, 3, 4)
    target /= target.sum(-1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    pairs = [-np.sum(target[t] * logp[v], -1).mean() for t in range(2) for v in range(4) if t != v]
    assert len(pairs) == 6
    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(swapped_cross_entropy))(target, logp))
    assert value == pytest.approx(np.mean(pairs), rel=1e-5)
    assert not gradient.any()


def test_local_crops_are_views_of_the_image_after_the_first_two():
    rows = np.asarray(BATCH["inputs"])
    views = jax.jit(partial(make_views, lambda keys, x: x, local_augment=lambda keys, x: -x, local_crops=2))(
        {**BATCH, "partner": rows + 100}, KEYS
    )
    np.testing.assert_array_equal(views, [rows, rows + 100, -rows, -rows])


@pytest.mark.parametrize("make", [swav, dino])
def test_equal_prototypes_leave_a_loss_of_the_log_of_their_number(make):
    objective = make(encoder(), augment=noisy, **MULTI_CROP, **SMALL)
    params, state = started(objective)
    params = {**params, "prototypes": np.ones_like(params["prototypes"])}
    value, _, metrics = loss_of(objective, params, state)
    assert value == pytest.approx(np.log(8), rel=1e-5)
    if make is swav:
        assert metrics["prototypes_used"] == 1 / 8


def test_prototypes_have_unit_length_before_and_after_an_update():
    objective = swav(encoder(), augment=noisy, **SMALL)
    params, state = jax.jit(objective.init)(jax.random.key(0), BATCH)
    prototypes = np.asarray(params["prototypes"])
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), 1, rtol=1e-5)
    after, _ = jax.jit(objective.after_update)({**params, "prototypes": 3 * prototypes}, state, 0)
    np.testing.assert_allclose(after["prototypes"], prototypes, rtol=1e-5)


@pytest.mark.parametrize("make", [swav, dino])
def test_prototypes_stay_in_the_first_steps_when_told_to(make):
    objective = make(encoder(), augment=noisy, freeze_steps=3, **SMALL)
    params, state = started(objective)
    grads = jax.jit(jax.grad(lambda params, step: objective.loss(params, state, BATCH, KEYS, step)[0]))
    for step, moves in ((2, False), (3, True)):
        assert bool(np.abs(np.asarray(grads(params, step)["prototypes"])).max() > 1e-6) == moves


def test_dino_predicts_one_views_centred_sharpened_scores_from_the_others_and_centres_by_their_mean():
    settings = {"temperature": 0.3, "teacher_temperature": 0.1, "centre_momentum": 0.75}
    objective = dino(encoder(), augment=noisy, **settings, **SMALL)
    params, state = started(objective)
    state = {**state, "centre": np.linspace(-0.4, 0.4, 8, dtype=np.float32)}
    net = chain(encoder=encoder(), projector=Head((6, 6, 4), norm="none"))

    @jax.jit
    def scores(weights):
        rows = apply_to_views(net, weights, state, make_views(noisy, BATCH, KEYS))[0]["projector"]
        columns = weights["prototypes"]
        lengths = jnp.linalg.norm(rows, axis=-1, keepdims=True) * jnp.linalg.norm(columns, axis=1)
        return rows @ columns.T / lengths

    student, teacher = (np.asarray(scores(weights), np.float64) for weights in (params, state["teacher"]))
    sharp = np.exp((teacher - np.asarray(state["centre"])) / 0.1)
    target = sharp / sharp.sum(-1, keepdims=True)
    guess = student / 0.3 - np.log(np.exp(student / 0.3).sum(-1, keepdims=True))
    value, after, _ = loss_of(objective, params, state)
    assert value == pytest.approx(-(target * guess[::-1]).sum(-1).mean(), rel=1e-5)
    wanted = 0.75 * np.asarray(state["centre"]) + 0.25 * teacher.mean((0, 1))
    np.testing.assert_allclose(after["centre"], wanted, rtol=1e-4, atol=1e-6)


def test_sharpening_lowers_the_teachers_entropy():
    entropies = []
    for teacher_temperature in (0.02, 0.1, 10.0):
        objective = dino(encoder(), augment=noisy, teacher_temperature=teacher_temperature, **SMALL)
        params, state = started(objective)
        entropies.append(float(loss_of(objective, params, state)[2]["teacher_entropy"]))
    assert entropies == sorted(entropies)
    assert entropies[-1] == pytest.approx(np.log(8), abs=1e-3)


def test_no_gradient_reaches_dinos_teacher():
    objective = dino(encoder(), augment=noisy, **SMALL)
    params, state = started(objective)

    def of_teacher(teacher):
        return objective.loss(params, {**state, "teacher": teacher}, BATCH, KEYS, 0)[0]

    grads = jax.jit(jax.grad(of_teacher))(state["teacher"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.device_get(grads)))


@pytest.mark.parametrize(
    ("make", "setting", "said"),
    [
        (dino, {"centre_momentum": 1.5}, r"dino: centre_momentum must be in \[0, 1\), got 1.5"),
        (dino, {"teacher_temperature": 0.0}, "dino: teacher_temperature must be positive"),
        (swav, {"prototypes": 0}, "swav: prototypes must be positive"),
        (swav, {"local_crops": -1}, "swav: local_crops must not be negative"),
        (swav, {"local_augment": "locl-crop"}, "unknown augmentation 'locl-crop'; there are: .*local-crop"),
    ],
)
def test_settings_out_of_range_are_refused(make, setting, said):
    with pytest.raises(ValueError, match=said):
        make(encoder(), augment=noisy, **setting)


def test_both_views_count_where_there_are_no_local_crops():
    assert jax.eval_shape(partial(make_views, noisy), BATCH, KEYS).shape == (2, SIZE, 6)
