"""Supervised contrast against its closed forms, and its limit without shared labels."""

import jax
import numpy as np
import pytest
from objective_checks import BATCH, KEYS, all_devices, check_devices, encoder, loss_of, noisy, started

from metarep_jax.pretrain import nt_xent, simclr, supcon
from metarep_jax.pretrain.supcon import supervised_contrast

SMALL = {"hidden": 6, "out": 4}
compiled = jax.jit(supervised_contrast, static_argnames="temperature")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@all_devices
def test_any_number_of_devices_computes_the_same_update(count):
    check_devices(lambda axis: supcon(encoder(axis), augment=noisy, axis_name=axis, temperature=0.5, **SMALL), count)


def test_with_one_positive_each_it_is_nt_xent():
    first, second = normal(0, 2, 6, 5)
    loss, metrics = compiled(first, second, np.arange(6), temperature=0.4)
    wanted, its_metrics = jax.jit(nt_xent, static_argnames="temperature")(first, second, temperature=0.4)
    assert loss == pytest.approx(float(wanted), rel=1e-6)
    assert metrics["contrastive_accuracy"] == its_metrics["contrastive_accuracy"]


def test_classes_at_right_angles_have_their_closed_form():
    label = np.array([0, 1, 0, 1, 1, 0])
    rows = np.eye(2)[label]
    loss, metrics = compiled(rows, 3 * rows, label, temperature=0.5)
    # five other views at cosine 1, all of them positives, and six at cosine 0
    assert loss == pytest.approx(np.log(5 * np.exp(2) + 6) - 2, rel=1e-5)
    assert metrics["contrastive_accuracy"] == 1


def test_it_equals_the_written_out_definition():
    first, second = normal(1, 2, 5, 4)
    label = np.array([0, 0, 1, 2, 1])
    loss, _ = compiled(first, second, label, temperature=0.3)
    z = np.concatenate([first, second])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    s, labels, terms = z @ z.T / 0.3, np.tile(label, 2), []
    for i in range(10):
        others = [a for a in range(10) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        terms.append(-np.mean([s[i, p] - np.log(np.exp(s[i, others]).sum()) for p in positives]))
    assert loss == pytest.approx(np.mean(terms), rel=1e-5)


def test_as_an_objective_with_every_label_alone_it_is_simclr():
    batch = {**BATCH, "label": BATCH["index"]}
    one, other = (make(encoder(), augment=noisy, temperature=0.5, **SMALL) for make in (supcon, simclr))
    params, state = started(one)
    assert loss_of(one, params, state, batch=batch)[0] == pytest.approx(
        float(loss_of(other, params, state, batch=batch)[0]), rel=1e-5
    )


def test_its_gradient_is_a_number_though_a_view_is_never_compared_with_itself():
    grad = jax.jit(jax.grad(lambda rows, label: supervised_contrast(rows, rows, label)[0]))
    assert np.isfinite(np.asarray(grad(normal(2, 4, 3), np.array([0, 0, 1, 1])))).all()


def test_a_batch_without_labels_is_refused():
    objective = supcon(encoder(), augment=noisy, **SMALL)
    params, state = started(objective)
    with pytest.raises(ValueError, match=r"labelled batches.*\['index', 'inputs'\]"):
        objective.loss(params, state, {name: BATCH[name] for name in ("inputs", "index")}, KEYS, 0)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"supcon: temperature must be positive, got 0.0"):
        supcon(encoder(), augment=noisy, temperature=0.0)
