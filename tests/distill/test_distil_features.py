"""Distillation of features against its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_checks import BATCH, KEYS, SIZE, all_devices, check_devices, encoder, noisy, plain, started

from metarep_jax.distill import (
    distil_features,
    encoder_alone,
    feature_loss,
    feature_regression,
    frozen_teacher,
    hint,
    targets_by_index,
)
from metarep_jax.types import Objective

TARGETS = jnp.asarray(np.random.default_rng(7).standard_normal((SIZE, 3)), jnp.float32)


def make(axis_name=None, augment=noisy, targets=TARGETS):
    """The loss in the form of an objective, which ``objective_checks`` know."""
    teacher, term = targets_by_index(targets), feature_regression(axis_name=axis_name)
    init, loss = feature_loss(encoder(axis_name), term, teacher=teacher, augment=augment, axis_name=axis_name)
    return Objective(
        init=lambda key, batch, encoder_params=None: init(key, batch),
        loss=lambda params, state, batch, keys, step: loss(params, state, batch, keys),
        features=lambda params, state, inputs: inputs,
    )


@all_devices
def test_devices_do_not_matter(count):
    check_devices(make, count)


def test_the_loss_is_the_distance_of_directions_to_the_features_of_the_same_image():
    objective = make(augment=plain)
    params, state = started(objective)
    value, _ = jax.jit(objective.loss)(params, state, {**BATCH, "index": np.arange(SIZE)[::-1]}, KEYS, 0)
    weights, averages = params["student"]["encoder"], state["student"]["encoder"]
    features = jax.jit(encoder().apply)({"params": weights, "batch_stats": averages}, BATCH["inputs"])
    kernel, bias, features = map(np.asarray, (params["terms"]["kernel"], params["terms"]["bias"], features))
    predicted, targets = features @ kernel + bias, np.asarray(TARGETS)[::-1]
    ours, wanted = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (predicted, targets))
    assert value == pytest.approx(np.square(ours - wanted).sum(1).mean(), rel=1e-5)


def test_no_gradient_reaches_the_teacher_and_its_scale_does_not_matter():
    params, state = started(make())

    @jax.jit
    @jax.value_and_grad
    def value_and_slope(scale):
        return make(targets=lambda index: scale * TARGETS[index]).loss(params, state, BATCH, KEYS, 0)[0]

    value, slope = value_and_slope(2.0)
    assert slope == 0
    assert value == pytest.approx(float(value_and_slope(1.0)[0]), rel=1e-6)


def test_a_teacher_that_sees_the_students_view_gives_its_layers_too():
    big = encoder_alone(encoder(norm="none"))
    teacher = frozen_teacher(big, *jax.jit(big.init)(jax.random.key(1), BATCH["inputs"]))
    trainable = distil_features(encoder(), hint("layer1"), teacher=teacher, augment=noisy)
    params, state = jax.jit(trainable.init)(jax.random.key(0), BATCH)
    assert set(params) == set(state) == {"student", "terms"}
    grads, moved, metrics = jax.jit(trainable.grads)(params, state, BATCH, KEYS, 0)
    assert set(metrics) == {"loss", "embedding_std", "effective_rank"}
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["student"]["encoder"]))
    changed = jax.tree.map(
        lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), moved["student"], state["student"]
    )
    assert any(jax.tree.leaves(changed))


def test_features_that_were_computed_before_go_by_index_and_have_no_other_layer():
    with pytest.raises(ValueError, match="index, which these batches lack"):
        targets_by_index(TARGETS)({"inputs": BATCH["inputs"]}, ())
    with pytest.raises(ValueError, match="no layer 'layer1'"):
        targets_by_index(TARGETS)(BATCH, ("layer1",))
