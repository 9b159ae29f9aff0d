"""BYOL, SimSiam, Barlow Twins and VICReg against their formulas; where gradients must stop; collapse."""

from functools import partial

import jax
import numpy as np
import pytest
from objective_checks import BATCH, KEYS, all_devices, check_devices, cosine, encoder, loss_of, noisy, plain, started

from metarep_jax.pretrain import barlow, byol, simsiam, vicreg
from metarep_jax.pretrain.barlow import cross_correlation, redundancy
from metarep_jax.pretrain.chain import apply_to_views, chain
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.simsiam import negative_cosine
from metarep_jax.pretrain.vicreg import covariance_term, variance_term
from metarep_jax.pretrain.views import make_views

SMALL = {"hidden": 6, "out": 4}
terms = jax.jit(lambda rows: (variance_term(rows), covariance_term(rows)))


@all_devices
@pytest.mark.parametrize("make", [byol, partial(simsiam, bottleneck=12), barlow, vicreg])
def test_any_number_of_devices_computes_the_same_update(make, count):
    check_devices(lambda axis: make(encoder(axis), augment=noisy, axis_name=axis, **SMALL), count)


def test_negative_cosine_of_rows_at_known_angles():
    angles = np.array([0.0, 0.5, 2.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    found = jax.jit(negative_cosine)(3 * rows, np.array([[2.0, 0.0]] * 3))
    assert found == pytest.approx(-np.cos(angles).mean(), rel=1e-6)


def test_no_gradient_reaches_the_target_of_negative_cosine():
    one, other = np.random.default_rng(0).normal(size=(2, 4, 3))
    to_prediction, to_target = jax.device_get(jax.jit(jax.grad(negative_cosine, argnums=(0, 1)))(one, other))
    assert np.abs(to_prediction).max() > 0.01
    assert not to_target.any()


def test_simsiam_is_the_mean_of_both_views_negative_cosines_and_stops_at_the_projections():
    objective = simsiam(encoder(), augment=noisy, bottleneck=12, **SMALL)
    net = chain(encoder=encoder(), projector=Head((6, 6, 4), last_norm=True), predictor=Head((12, 4)))
    params, state = started(objective)

    def by_hand(params, stopped):
        views = make_views(noisy, BATCH, KEYS)
        p = apply_to_views(net, params, state, views)[0]["predictor"]
        z = apply_to_views(net, stopped, state, views)[0]["projector"]
        return -(cosine(p[0], z[1]) + cosine(p[1], z[0])) / 2

    def both(params):
        ours = jax.value_and_grad(lambda params: objective.loss(params, state, BATCH, KEYS, 0)[0])(params)
        return jax.value_and_grad(by_hand)(params, params), ours

    (value, grads), (found, found_grads) = jax.device_get(jax.jit(both)(params))
    assert -1 <= value <= 1
    assert found == pytest.approx(float(value), rel=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), found_grads, grads)


def test_byol_is_four_minus_twice_the_cosines_and_trains_no_teacher():
    objective = byol(encoder(), augment=noisy, **SMALL)
    params, state = started(objective)
    net = chain(encoder=encoder(), projector=Head((6, 4)), predictor=Head((6, 4)))
    short = chain(encoder=encoder(), projector=Head((6, 4)))

    @jax.jit
    def both_cosines(params, teacher):
        views = make_views(noisy, BATCH, KEYS)
        q = apply_to_views(net, params, state, views)[0]["predictor"]
        z = apply_to_views(short, teacher, state, views)[0]["projector"]
        return cosine(q[0], z[1]) + cosine(q[1], z[0])

    cosines = float(both_cosines(params, state["teacher"]))

    def of_teacher(teacher):
        return objective.loss(params, {**state, "teacher": teacher}, BATCH, KEYS, 0)[0]

    value, grads = jax.jit(jax.value_and_grad(of_teacher))(state["teacher"])
    assert value == pytest.approx(4 - 2 * cosines, rel=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.device_get(grads)))


def test_barlow_of_decorrelated_features_that_agree_is_its_minimum():
    signs = np.array([[a, b, a * b] for a in (1.0, -1.0) for b in (1.0, -1.0)])  # orthogonal columns of mean 0
    matrix = jax.jit(cross_correlation)(signs, 5 * signs + 2)  # neither scale nor shift matters
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-4)
    loss = jax.jit(jax.value_and_grad(lambda first, second: redundancy(cross_correlation(first, second), 0.1)))
    value, gradient = loss(signs, signs)
    assert value == pytest.approx(0, abs=1e-6)
    assert np.abs(np.asarray(gradient)).max() < 1e-3
    for seed in range(3):
        assert float(loss(signs + 0.2 * np.random.default_rng(seed).normal(size=signs.shape), signs)[0]) > 1e-3


def test_barlow_counts_what_two_equal_dimensions_share():
    column = np.array([1.0, -1.0, 1.0, -1.0])

    @jax.jit
    def both(rows):
        matrix = cross_correlation(rows, rows)
        return redundancy(matrix, 0.1), redundancy(-matrix, 0.1)

    alike, opposite = both(np.stack([column] * 3, axis=1))
    assert alike == pytest.approx(0.1 * 6, rel=1e-4)
    assert opposite == pytest.approx(3 * 4 + 0.1 * 6, rel=1e-4)


def test_vicregs_terms_by_hand():
    rows = np.array([[1.0, 0.0, 4.0], [3.0, 0.2, 1.0], [2.0, 0.1, 7.0], [0.0, 0.3, 0.0]])
    of_variance, of_covariance = terms(rows)
    covariance = np.cov(rows, rowvar=False)
    spread = np.sqrt(np.diag(covariance) + 1e-4)
    assert of_variance == pytest.approx(np.maximum(0, 1 - spread).mean(), rel=1e-5)
    off = covariance[~np.eye(3, dtype=bool)]
    assert of_covariance == pytest.approx(np.sum(off**2) / 3, rel=1e-5)


def test_vicreg_of_collapsed_embeddings_is_the_variance_term_alone():
    of_variance, of_covariance = terms(np.ones((5, 4)))
    assert of_variance == pytest.approx(1 - 0.01, rel=1e-5)
    assert of_covariance == pytest.approx(0, abs=1e-10)


@jax.jit
def project(params, state):
    """Both views' outputs of a projector of three layers."""
    net = chain(encoder=encoder(), projector=Head((6, 6, 4)))
    return apply_to_views(net, params, state, make_views(noisy, BATCH, KEYS))[0]["projector"]


def projections(params, state):
    return np.asarray(project(params, state), np.float64)


def test_vicreg_weighs_the_distance_and_both_views_variances_and_covariances():
    objective = vicreg(encoder(), augment=noisy, invariance=3.0, variance=5.0, covariance=7.0, **SMALL)
    params, state = started(objective)
    views = projections(params, state)
    wanted = 3.0 * np.mean((views[0] - views[1]) ** 2)
    for rows in views:
        matrix = np.cov(rows, rowvar=False)
        wanted += 5.0 * np.maximum(0, 1 - np.sqrt(np.diag(matrix) + 1e-4)).mean()
        wanted += 7.0 * np.sum(matrix[~np.eye(4, dtype=bool)] ** 2) / 4
    assert loss_of(objective, params, state)[0] == pytest.approx(wanted, rel=1e-4)


def test_vicregs_variance_term_is_the_sum_of_the_papers_or_the_mean_of_the_authors_code():
    weights = {"invariance": 3.0, "variance": 5.0, "covariance": 7.0, **SMALL}
    paper = vicreg(encoder(), augment=noisy, **weights)
    params, state = started(paper)
    code = vicreg(encoder(), augment=noisy, halve_variance=True, **weights)
    (whole, _, terms), (halved, _, half) = (loss_of(each, params, state) for each in (paper, code))
    by_hand = [np.maximum(0, 1 - np.sqrt(rows.var(0, ddof=1) + 1e-4)).mean() for rows in projections(params, state)]
    assert terms["variance"] == pytest.approx(sum(by_hand), rel=1e-4)
    assert half["variance"] == pytest.approx(np.mean(by_hand), rel=1e-4)
    assert float(whole) - float(halved) == pytest.approx(5.0 * np.mean(by_hand), rel=1e-3)


def test_barlow_correlates_the_two_views():
    objective = barlow(encoder(), augment=noisy, off_diagonal=0.2, **SMALL)
    params, state = started(objective)
    views = projections(params, state)
    matrix = np.corrcoef(*views, rowvar=False)[:4, 4:]
    off = matrix[~np.eye(4, dtype=bool)]
    wanted = np.sum((1 - np.diag(matrix)) ** 2) + 0.2 * np.sum(off**2)
    assert loss_of(objective, params, state)[0] == pytest.approx(wanted, rel=1e-3)


def test_views_that_are_the_same_cost_vicreg_no_distance():
    objective = vicreg(encoder(), augment=plain, **SMALL)
    assert loss_of(objective, *started(objective))[2]["invariance"] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(
    ("make", "setting", "said"),
    [
        (byol, {"momentum": 1.0}, r"byol: momentum must be in \[0, 1\), got 1.0"),
        (byol, {"out": 0}, "byol: out must be positive, got 0"),
        (simsiam, {"bottleneck": -1}, "simsiam: bottleneck must be positive, got -1"),
        (barlow, {"off_diagonal": 0.0}, "barlow: off_diagonal must be positive"),
        (vicreg, {"variance": -1.0}, "vicreg: variance must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(make, setting, said):
    with pytest.raises(ValueError, match=said):
        make(encoder(), augment=noisy, **setting)
