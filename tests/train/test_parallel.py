"""Devices: what a step computes does not depend on how many there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.train import check_batch, dividing_devices, local_devices, map_over_keys, use_cpu_devices
from metarep_jax.train.parallel import (
    map_step,
    mean_over_devices,
    replicate,
    shard,
    shard_index,
    step_keys,
    unreplicate,
)

ROOT = jax.random.key(0)


def draw(key, shift):
    return jax.random.normal(key, (3,)) + shift


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (1, 4), (2, 3), (8, None)])
def test_a_function_mapped_over_keys_gives_each_key_its_own_result(devices, chunk):
    keys = jax.random.split(ROOT, 11)
    found = map_over_keys(draw, keys, jnp.float32(2), devices=jax.devices()[:devices], chunk=chunk)
    np.testing.assert_allclose(found, jnp.stack([draw(key, 2) for key in keys]), rtol=1e-5, atol=1e-6)


def test_keys_of_a_step_are_the_same_however_the_batch_is_divided():
    whole = step_keys(ROOT, 5, 8, 0, 1)
    for parts in (2, 4, 8):
        divided = [step_keys(ROOT, 5, 8, part, parts) for part in range(parts)]
        example = np.concatenate([jax.random.key_data(keys.example) for keys in divided])
        np.testing.assert_array_equal(example, jax.random.key_data(whole.example))
        assert all(keys.shared == whole.shared for keys in divided)


def test_keys_of_examples_steps_and_the_shared_one_differ():
    keys = [step_keys(ROOT, step, 8, 0, 1) for step in range(3)]
    data = np.concatenate([jax.random.key_data(jnp.append(each.example, each.shared)) for each in keys])
    assert len(np.unique(data, axis=0)) == 27


def test_means_over_devices_leave_counters_as_they_are():
    devices = jax.devices()[:4]

    def local(state, source):
        return state, mean_over_devices({"mean": source + shard_index(), "count": jnp.int32(7)})

    state = replicate(jnp.float32(0), devices)
    _, found = map_step(local, devices)(state, shard(np.arange(4.0, dtype=np.float32), devices))
    assert unreplicate(found) == {"mean": 3.0, "count": 7}


def test_what_is_replicated_comes_back():
    tree = {"w": np.arange(6.0).reshape(2, 3).astype(np.float32), "key": jax.random.key(3)}
    back = unreplicate(replicate(tree, jax.devices()[:2]))
    np.testing.assert_array_equal(back["w"], tree["w"])
    assert back["key"] == tree["key"]


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    check_batch(16, 8, 2)
    with pytest.raises(ValueError, match=r"13 does not divide over 4 devices; .* such as 12, by --….train.batch-size"):
        check_batch(13, 4)
    with pytest.raises(ValueError, match=r"8 devices times 2 accumulated micro-batches; take .* 16, such as 16"):
        check_batch(8, jax.devices(), 2)


def test_devices_that_are_not_there_are_refused():
    assert local_devices(2) == jax.devices()[:2]
    assert local_devices() == jax.devices()
    with pytest.raises(ValueError, match="asked for 9 devices, there are 8"):
        local_devices(9)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        use_cpu_devices(0)


@pytest.mark.parametrize(
    ("batch", "accumulate", "used"), [(2, 1, 2), (256, 1, 8), (20, 1, 5), (7, 1, 7), (1, 1, 1), (12, 2, 6), (3, 2, 8)]
)
def test_as_many_devices_are_used_as_divide_a_batch_and_all_where_none_do(batch, accumulate, used):
    """Where not even one does, ``check_batch`` says so of all of them."""
    devices = jax.devices()[:8]
    assert dividing_devices(devices, batch, accumulate) == devices[:used]
