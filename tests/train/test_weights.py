"""The weights of a checkpoint by themselves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.train import read_weights
from metarep_jax.train.step import TrainState
from metarep_jax.train.storage.checkpoints import Checkpoints

SETTINGS = {"fit": {"seeds": 1}, "run": {"encoder": {"name": "mlp"}}}


class Pair(NamedTuple):
    left: np.ndarray


def train_state(step, average=None):
    params = {"encoder": {"Dense_0": {"kernel": np.full((2, 3), step, np.float32)}}}
    state = {"encoder": {}, "queue": Pair(np.arange(3.0, dtype=np.float32)), "moments": [np.int32(step), {}]}
    return TrainState(params, state, (np.zeros(4),), average, np.int32(step))


def write(folder, *states, settings=SETTINGS):
    with Checkpoints(folder / "checkpoints", keep=9, settings=settings) as checkpoints:
        for state in states:
            checkpoints.save(int(state.step), {"train": state}, {}, extra_arrays={"['partner']": np.arange(3)})


def test_the_latest_or_the_one_of_a_step_fills_trees_of_any_kind(tmp_path):
    write(tmp_path, train_state(2), train_state(10))
    latest, earlier = read_weights(tmp_path), read_weights(tmp_path, 2)
    assert (latest.step, earlier.step) == (10, 2)
    for weights in (latest, earlier):
        wanted = train_state(weights.step)
        found = weights.tree("params", wanted.params), weights.tree("state", wanted.state)
        jax.tree.map(np.testing.assert_array_equal, found, (wanted.params, wanted.state))
        assert jax.tree.structure(found) == jax.tree.structure((wanted.params, wanted.state))
    kernel = latest.tree("params['encoder']", {"Dense_0": {"kernel": jnp.zeros((2, 3))}})["Dense_0"]["kernel"]
    assert (kernel == 10).all()
    assert latest.has("params['encoder']") and not latest.has("params['student']")


def test_averaged_weights_stand_for_the_last_where_there_are_any(tmp_path):
    average = {"encoder": {"Dense_0": {"kernel": np.ones((2, 3), np.float32)}}}
    write(tmp_path, train_state(4, average))
    jax.tree.map(np.testing.assert_array_equal, read_weights(tmp_path).tree("params", average), average)


@pytest.mark.parametrize(
    "like", [{"Dense_1": {"kernel": jnp.zeros((2, 3))}}, {"Dense_0": {"kernel": jnp.zeros((3, 3))}}]
)
def test_weights_that_do_not_fit_are_named(tmp_path, like):
    write(tmp_path, train_state(1))
    with pytest.raises(ValueError, match=r"step 1 does not fit: params\['encoder'\]\['Dense_.'\]\['kernel'\] is"):
        read_weights(tmp_path).tree("params['encoder']", like)


@pytest.mark.parametrize(("step", "said"), [(None, "no checkpoint"), (3, "no checkpoint of step 3")])
def test_a_folder_without_checkpoints_is_named(tmp_path, step, said):
    with pytest.raises(FileNotFoundError, match=said):
        read_weights(tmp_path / "nowhere", step)


def test_another_step_is_answered_with_those_there_are(tmp_path):
    write(tmp_path, train_state(2), train_state(10))
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 3; there are: 2, 10"):
        read_weights(tmp_path, 3)


def test_several_seeds_are_refused(tmp_path):
    write(tmp_path, train_state(1), settings={"fit": {"seeds": 3}})
    with pytest.raises(ValueError, match="holds 3 seeds"):
        read_weights(tmp_path)


@pytest.mark.parametrize("what", ["arrays", "meta"])
def test_damage_is_noticed_and_its_place_named(tmp_path, what):
    write(tmp_path, train_state(1))
    files = [file for file in (tmp_path / "checkpoints" / "1" / what).rglob("*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    data = largest.read_bytes()
    if what == "meta":
        largest.write_bytes(data.replace(b'"mlp"', b'"mlq"'))
    else:
        largest.write_bytes(bytes([*data[: len(data) // 2], data[len(data) // 2] ^ 0xFF, *data[len(data) // 2 + 1 :]]))
    with pytest.raises(ValueError, match="checkpoints/1 are damaged"):
        read_weights(tmp_path)
