"""The weights of a checkpoint by themselves."""

from typing import NamedTuple

import numpy as np
import pytest

from metarep_jax.train import read_weights
from metarep_jax.train.checkpoints import Checkpoints
from metarep_jax.train.step import TrainState

SETTINGS = {"fit": {"seeds": 1}, "run": {"encoder": {"name": "mlp"}}}


class Pair(NamedTuple):
    left: np.ndarray


def train_state(step, average=None, **params):
    kernel = np.full((2, 3), step, np.float32)
    params = {"encoder": {"Dense_0": {"kernel": kernel}}, **params}
    state = {"encoder": {"Norm_0": {"mean": np.arange(3.0, dtype=np.float32)}}}
    return TrainState(params, state, (np.zeros(4),), average, np.int32(step))


def write(folder, *states, settings=SETTINGS):
    with Checkpoints(folder / "checkpoints", keep=9, settings=settings) as checkpoints:
        for state in states:
            checkpoints.save(int(state.step), {"train": state}, {}, loose={"['partner']": np.arange(3)})


def test_the_latest_or_the_one_of_a_step_comes_as_nested_dicts_with_what_the_training_was_told(tmp_path):
    write(tmp_path, train_state(2), train_state(10))
    latest, earlier = read_weights(tmp_path), read_weights(tmp_path, 2)
    assert (latest.step, earlier.step) == (10, 2)
    assert latest.settings == SETTINGS
    assert latest.params.keys() == latest.state.keys() == {"encoder"}
    np.testing.assert_array_equal(earlier.params["encoder"]["Dense_0"]["kernel"], np.full((2, 3), 2.0))
    np.testing.assert_array_equal(latest.state["encoder"]["Norm_0"]["mean"], [0, 1, 2])


def test_averaged_weights_stand_for_the_last_where_there_are_any(tmp_path):
    write(tmp_path, train_state(4, average={"encoder": {"Dense_0": {"kernel": np.ones((2, 3))}}}))
    assert read_weights(tmp_path).params["encoder"]["Dense_0"]["kernel"].max() == 1


def test_a_method_without_parameters_or_state_has_none(tmp_path):
    write(tmp_path, TrainState({}, {}, (), None, np.int32(1)))
    assert read_weights(tmp_path)[2:] == ({}, {})


@pytest.mark.parametrize(("step", "said"), [(None, "no checkpoint"), (3, "no checkpoint of step 3")])
def test_a_folder_without_checkpoints_is_named(tmp_path, step, said):
    with pytest.raises(FileNotFoundError, match=said):
        read_weights(tmp_path / "nowhere", step)


def test_another_step_is_answered_with_those_there_are(tmp_path):
    write(tmp_path, train_state(2), train_state(10))
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 3; there are: 2, 10"):
        read_weights(tmp_path, 3)


def test_several_seeds_and_trees_of_other_kinds_are_refused(tmp_path):
    write(tmp_path / "seeds", train_state(1), settings={"fit": {"seeds": 3}})
    with pytest.raises(ValueError, match="holds 3 seeds"):
        read_weights(tmp_path / "seeds")
    write(tmp_path / "pair", train_state(1, rule=Pair(np.ones(2))))
    with pytest.raises(ValueError, match=r"nested dicts; .*\['rule'\]\.left"):
        read_weights(tmp_path / "pair")


def test_damage_is_noticed(tmp_path):
    write(tmp_path, train_state(1))
    arrays = sorted(
        (tmp_path / "checkpoints" / "1" / "arrays").rglob("*"), key=lambda f: f.is_file() and f.stat().st_size
    )
    largest = arrays[-1]
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(data)
    with pytest.raises(ValueError, match="are damaged"):
        read_weights(tmp_path)
