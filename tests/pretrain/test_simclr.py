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


ROWS = {"inputs": np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), "index": np.arange(6)}
ENCODER = MLP(widths=(8, 5), norm="batch")
KEYS = Keys(jax.random.split(jax.random.key(1), 6), jax.random.key(2))


@pytest.fixture(scope="module")
def trained():
    """An objective, its compiled ``(params, batch, keys, step) -> loss, …`` with gradient, params and state."""
    objective = simclr(ENCODER, augment=blur, hidden=8, out=4, temperature=0.5)
    params, state = jax.jit(objective.init)(jax.random.key(3), ROWS)

    def loss(params, keys, step):
        return objective.loss(params, state, jax.tree.map(jnp.asarray, ROWS), keys, step)

    return objective, jax.jit(jax.value_and_grad(loss, has_aux=True)), params, state


@all_devices
def test_any_number_of_devices_computes_the_same_update(count):
    check_devices(lambda axis: simclr(encoder(axis), augment=noisy, axis_name=axis, hidden=6, out=4), count)


@all_devices
def test_partners_do_not_depend_on_the_devices_either(count):
    partner = np.random.default_rng(6).normal(size=BATCH["inputs"].shape).astype(np.float32)

    def make(axis):
        objective = simclr(encoder(axis), augment=noisy, axis_name=axis, hidden=6, out=4)
        return with_neighbours(objective, neighbours=2)

    check_devices(make, count, {**BATCH, "partner": partner})


def test_the_same_keys_give_the_same_loss_and_others_another(trained):
    _, step, params, _ = trained
    other = Keys(jax.random.split(jax.random.key(9), 6), KEYS.shared)
    one, later, another = (float(step(params, *given)[0][0]) for given in ((KEYS, 0), (KEYS, 7), (other, 0)))
    assert one == later
    assert one != another


def test_given_encoder_parameters_are_taken_over(trained):
    @jax.jit
    def start(inputs):
        given = ENCODER.init(jax.random.key(4), inputs)
        return given, trained[0].init(jax.random.key(5), {**ROWS, "inputs": inputs}, given)[0]

    given, params = start(ROWS["inputs"])
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], given["params"])


def test_features_do_not_depend_on_the_rest_of_the_batch(trained):
    objective, _, params, state = trained
    features = jax.jit(objective.features)
    whole = np.asarray(features(params, state, ROWS["inputs"]))
    np.testing.assert_allclose(features(params, state, ROWS["inputs"][:1]), whole[:1], rtol=1e-5)


def test_training_makes_views_find_their_partners(trained):
    _, step, params, _ = trained
    (first, _), _ = step(params, KEYS, 0)
    for _ in range(60):
        _, grads = step(params, KEYS, 0)
        params = jax.tree.map(lambda leaf, grad: leaf - np.float32(0.1) * grad, *jax.device_get((params, grads)))
    (last, (_, metrics)), _ = step(params, KEYS, 0)
    assert float(last) < float(first)
    assert metrics["contrastive_accuracy"] == 1


def test_refresh_pairs_images_that_look_alike():
    objective = with_neighbours(simclr(ENCODER, augment=blur, hidden=8, out=4), neighbours=1)
    random = np.random.default_rng(6)
    ends = 5 * random.normal(size=(5, 4))
    inputs = (np.repeat(ends, 2, axis=0) + 1e-3 * random.normal(size=(10, 4))).astype(np.float32)
    pool = Pool(*map(jnp.asarray, (inputs, np.zeros(10, int), np.zeros((1, 10), int), np.array([10]))))
    params, state = jax.jit(objective.init)(jax.random.key(3), {"inputs": inputs})
    own = jnp.asarray(np.arange(10, dtype=np.int32)[:, None])
    found = objective.refresh(params, state, Partnered(pool, own), jax.random.key(8))
    assert np.ravel(np.asarray(found.partner)).tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]


@pytest.mark.parametrize(("setting", "value"), [("temperature", 0.0), ("hidden", -1), ("out", 0)])
def test_settings_that_are_not_positive_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be positive, got {value}"):
        simclr(ENCODER, augment=blur, **{setting: value})
