"""Lines of metrics on disk."""

import numpy as np

from metarep_jax.train import read_lines
from metarep_jax.train.metrics import MetricsLog, append_metrics, cut_lines, mean_metrics


def test_lines_past_the_step_and_half_lines_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    assert [line["step"] for line in read_lines(path)] == [1, 2]
    cut_lines(path, 1)
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'
    cut_lines(path, 0)
    assert path.read_text() == ""
    assert read_lines(tmp_path / "absent.jsonl") == []


def test_a_log_opened_at_a_step_goes_on_from_it(tmp_path):
    for start, values in ((0, {1: 4.0, 2: 3.0, 3: 9.0}), (2, {3: 2.0})):
        with MetricsLog(tmp_path, start, tensorboard=False) as lines:
            for step, loss in values.items():
                lines.write(step, {"loss": loss})
                lines.write_timing(step, seconds_per_step=0.1)
    assert [(line["step"], line["loss"]) for line in read_lines(tmp_path / "metrics.jsonl")] == [(1, 4), (2, 3), (3, 2)]
    assert len(read_lines(tmp_path / "timing.jsonl")) == 3


def test_metrics_are_written_to_the_last_bit(tmp_path):
    value = float(np.float32(0.1)) / 3
    with MetricsLog(tmp_path, 0, tensorboard=False) as lines:
        lines.write(1, {"loss": value})
    assert read_lines(tmp_path / "metrics.jsonl")[0]["loss"] == value


def test_means_over_steps_and_over_seeds():
    rows = {"loss": np.array([[1.0, 3.0], [2.0, 6.0]])}
    found = mean_metrics(append_metrics(rows, {"loss": np.array([[3.0, 9.0]])}), (4, 5))
    assert found == {"loss": 4.0, "loss/seed4": 2.0, "loss/seed5": 6.0}
    assert mean_metrics({"loss": np.array([1.0, 2.0])}, (4,)) == {"loss": 1.5}
