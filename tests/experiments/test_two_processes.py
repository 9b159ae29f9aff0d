"""An experiment on two processes, from the command line to the report."""

import os
import socket
import subprocess
import sys

import pytest

from metarep_jax.report.results import read_result

FLAGS = (
    "--encoder.width 8 --pretrain.train.steps 4 --pretrain.train.batch-size 16 --pretrain.optimiser.warmup-steps 1 "
    "--evaluate.ways 5 --evaluate.shots 1 --evaluate.episodes 20 --evaluate.mode-episodes 20"
)


@pytest.mark.slow
def test_two_processes_run_an_experiment_to_its_end_and_the_first_one_reports(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    words = [sys.executable, "-m", "experiments.pretrain", *FLAGS.split(), "--run-folder", str(tmp_path / "run")]
    words += ["--coordinator", address, "--processes", "2", "--process-index"]
    own = {**os.environ, "METAREP_COMPILED": "off"}
    processes = [
        subprocess.Popen([*words, str(index)], env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for index in range(2)
    ]
    said = [process.communicate(timeout=150)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    result = read_result(tmp_path / "run" / "result.json")
    assert (result.device["processes"], result.cells["pretrained"]["5w1s"]["n"]) == (2, 20)
    assert "report:" in said[0] and "report:" not in said[1]
    assert not list(tmp_path.rglob("*.part"))
