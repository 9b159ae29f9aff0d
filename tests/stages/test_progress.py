"""Evaluation shows how far it is, in the same numbers as without."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_inputs import ENCODER, FEW, compute, few_shot_data

from metarep_jax.evaluate.few_shot import map_in_order
from metarep_jax.stages import EvaluateSettings
from metarep_jax.stages.evaluate import few_shot_columns, few_shot_rows
from metarep_jax.stages.features import untrained_model
from metarep_jax.stages.progress import in_parts, shown_batches
from metarep_jax.train import display


@pytest.mark.parametrize("n", [7, 250, 1003])
def test_parts_give_what_all_at_once_give_and_are_counted(n):
    notes, keys = [], jax.random.split(jax.random.key(0), n)
    parts = in_parts(map_in_order, notes.append, "5w1s")(_draw, keys, jnp.float32(2.0))
    np.testing.assert_array_equal(parts, map_in_order(_draw, keys, jnp.float32(2.0)))
    assert len(notes) == max(min(n // 100, 10), 1)
    assert notes[0] == f"5w1s, 0 of {n} episodes"


def _draw(key, scale):
    return scale * jax.random.uniform(key)


def test_batches_of_features_are_counted():
    notes = []
    shown = shown_batches(lambda rows: rows * 2, 10, notes.append)
    np.testing.assert_array_equal(shown(np.ones(6)), 2 * np.ones(6))
    shown(np.ones(4))
    assert notes == ["features, 0 of 10 rows", "features, 6 of 10 rows"]


def test_rows_tell_a_log_what_is_evaluated_and_how_much_is_left(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    data = few_shot_data()
    model = untrained_model(ENCODER, data, compute(tmp_path), 0.25)
    with caplog.at_level(logging.INFO):
        few_shot_rows({"first": model, "second": model}, data, FEW, compute(tmp_path))
    assert "evaluate: column 1 of 2" in caplog.text and "min left; second features, 0 of 18 rows" in caplog.text
    assert "evaluate: column 2 of 2" in caplog.text


def test_validation_during_training_shows_nothing(tmp_path, caplog):
    data = few_shot_data()
    model = untrained_model(ENCODER, data, compute(tmp_path), 0.25)
    with caplog.at_level(logging.INFO):
        specs = EvaluateSettings(ways=(2,), shots=(1,)).columns(data.protocol, data.val)
        columns = few_shot_columns(model, data, specs, compute(tmp_path), part="val", episodes=4)
    assert caplog.text == ""
    assert columns.keys() == {"2w1s"}
