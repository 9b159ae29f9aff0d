"""Two processes of two devices each train what one process of four does."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from two_processes import CONFIG

from metarep_jax.train import read_lines, start_processes
from metarep_jax.train.processes import broadcast_from_main, gather_bytes

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_equal_one(tmp_path):
    both, one = tmp_path / "both", tmp_path / "one"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [[sys.executable, str(SCRIPT), str(port), "2", str(index), str(both)] for index in range(2)]
    processes = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in words]
    fitted = tiny.train(one, CONFIG, devices=jax.devices()[:4])
    for process in processes:
        error = process.communicate(timeout=80)[1]
        assert process.returncode == 0, error
    for index in range(2):
        found = np.load(f"{both}.{index}.npz")
        for name, wanted in zip(found.files, jax.tree.leaves((fitted.params, fitted.state)), strict=True):
            np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)
    lines, expected = (read_lines(folder / "metrics.jsonl") for folder in (both, one))
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]
    for line, other in zip(lines, expected, strict=True):
        assert line == pytest.approx(other, rel=1e-4)


def test_one_process_tells_itself():
    assert broadcast_from_main({"step": 3}) == {"step": 3}
    assert gather_bytes(b"abc") == [b"abc"]


def test_a_process_index_out_of_range_is_refused():
    with pytest.raises(ValueError, match="must be in 0 to 1, got 2"):
        start_processes("localhost:1", 2, 2)
