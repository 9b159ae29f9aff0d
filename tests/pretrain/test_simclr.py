"""SimCLR as an objective: hand-over, views by key, neighbours as partners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_checks import BATCH, all_devices, check_devices, encoder, noisy

from metarep_jax.encoders.mlp import MLP
from metarep_jax.pretrain import simclr, with_neighbours
from metarep_jax.types import Keys, Partnered, Pool


def blur(keys, images):
    return images + 0.1 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)


@pytest.fixture(scope="module")
def batch():
    return {"inputs": jax.random.normal(jax.random.key(0), (6, 4)), "index": jnp.arange(6)}


ENCODER = MLP(widths=(8, 5), norm="batch")
KEYS = Keys(jax.random.split(jax.random.key(1), 6), jax.random.key(2))


@all_devices
def test_any_number_of_devices_computes_the_same_update(count):
    check_devices(lambda axis: simclr(encoder(axis), augment=noisy, axis_name=axis, hidden=6, out=4), count)


@all_devices
def test_partners_do_not_depend_on_the_devices_either(count):
    partner = jax.random.normal(jax.random.key(6), BATCH["inputs"].shape)

    def make(axis):
        objective = simclr(encoder(axis), augment=noisy, axis_name=axis, hidden=6, out=4)
        return with_neighbours(objective, neighbours=2)

    check_devices(make, count, {**BATCH, "partner": partner})


def test_the_same_keys_give_the_same_loss_and_others_another(batch):
    objective = simclr(ENCODER, augment=blur, hidden=8, out=4)
    params, state = objective.init(jax.random.key(3), batch)
    one = objective.loss(params, state, batch, KEYS, 0)[0]
    assert one == objective.loss(params, state, batch, KEYS, 7)[0]
    other = Keys(jax.random.split(jax.random.key(9), 6), KEYS.shared)
    assert one != objective.loss(params, state, batch, other, 0)[0]


def test_given_encoder_parameters_are_taken_over(batch):
    objective = simclr(ENCODER, augment=blur, hidden=8, out=4)
    given = ENCODER.init(jax.random.key(4), batch["inputs"])
    params, _ = objective.init(jax.random.key(5), batch, given)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], given["params"])


def test_features_do_not_depend_on_the_rest_of_the_batch(batch):
    objective = simclr(ENCODER, augment=blur, hidden=8, out=4)
    params, state = objective.init(jax.random.key(3), batch)
    whole = objective.features(params, state, batch["inputs"])
    np.testing.assert_allclose(objective.features(params, state, batch["inputs"][:1]), whole[:1], rtol=1e-5)


def test_training_makes_views_find_their_partners(batch):
    objective = simclr(ENCODER, augment=blur, hidden=8, out=4, temperature=0.5)
    params, state = objective.init(jax.random.key(3), batch)
    step = jax.jit(jax.value_and_grad(lambda params: objective.loss(params, state, batch, KEYS, 0), has_aux=True))
    (first, _), _ = step(params)
    for _ in range(60):
        _, grads = step(params)
        params = jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, params, grads)
    (last, (_, metrics)), _ = step(params)
    assert last < first
    assert metrics["contrastive_accuracy"] == 1


def test_refresh_pairs_images_that_look_alike():
    objective = with_neighbours(simclr(ENCODER, augment=blur, hidden=8, out=4), neighbours=1)
    ends = 5 * jax.random.normal(jax.random.key(6), (5, 4))
    inputs = jnp.repeat(ends, 2, axis=0) + 1e-3 * jax.random.normal(jax.random.key(7), (10, 4))
    pool = Pool(inputs, jnp.zeros(10, int), jnp.zeros((1, 10), int), jnp.array([10]))
    params, state = objective.init(jax.random.key(3), {"inputs": inputs})
    own = jnp.arange(10, dtype=jnp.int32)[:, None]
    found = objective.refresh(params, state, Partnered(pool, own), jax.random.key(8))
    assert found.partner[:, 0].tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]


@pytest.mark.parametrize(("setting", "value"), [("temperature", 0.0), ("hidden", -1), ("out", 0)])
def test_settings_that_are_not_positive_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be positive, got {value}"):
        simclr(ENCODER, augment=blur, **{setting: value})
