"""Distillation of features against its closed form."""

import jax
import jax.numpy as jnp
import pytest
from objective_checks import (
    BATCH,
    KEYS,
    SIZE,
    all_devices,
    check_devices,
    encoder,
    loss_of,
    noisy,
    plain,
    started,
)

from metarep_jax.distill import distil_features

TARGETS = jax.random.normal(jax.random.key(7), (SIZE, 3))


def make(axis_name=None, augment=noisy, teach=lambda index: TARGETS[index]):
    return distil_features(encoder(axis_name), teach=teach, augment=augment, axis_name=axis_name)


@all_devices
def test_devices_do_not_matter(count):
    check_devices(make, count)


def test_the_loss_is_the_distance_of_directions_to_the_features_of_the_same_image():
    objective = make(augment=plain)
    params, state = started(objective)
    order = jnp.flip(jnp.arange(SIZE))
    value, _, _ = loss_of(objective, params, state, batch={**BATCH, "index": order})
    features = encoder().apply({"params": params["encoder"], "batch_stats": state["encoder"]}, BATCH["inputs"])
    predicted = features @ params["regressor"]["kernel"] + params["regressor"]["bias"]
    ours, wanted = (rows / jnp.linalg.norm(rows, axis=1, keepdims=True) for rows in (predicted, TARGETS[::-1]))
    assert value == pytest.approx(float(jnp.square(ours - wanted).sum(1).mean()), rel=1e-5)


def test_no_gradient_reaches_the_teacher_and_its_scale_does_not_matter():
    params, state = started(make())

    def loss(scale):
        return make(teach=lambda index: scale * TARGETS[index]).loss(params, state, BATCH, KEYS, 0)[0]

    value, slope = jax.value_and_grad(loss)(2.0)
    assert slope == 0
    assert value == pytest.approx(float(loss(1.0)), rel=1e-6)
