"""A run that is killed, asked to end, or damaged goes on as if nothing had happened."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from metarep_jax.train import read_lines

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def start_child(tmp_path_factory):
    """Starts ``tiny.child`` in a fresh process that shares imports and compiled functions with the others."""
    cache = tmp_path_factory.mktemp("xla")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tiny", "orbax.checkpoint", "tensorboardX"])

        def start(folder, **more):
            process = context.Process(target=tiny.child, args=(str(folder), str(cache)), kwargs=more)
            process.start()
            return process

        yield start


def finish(process):
    process.join(60)
    return process.exitcode


@pytest.fixture(scope="module")
def whole(start_child, tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert finish(start_child(folder)) == 0
    return folder


def steps_done(folder):
    lines = read_lines(folder / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0


def wait_for_step(process, folder, step):
    while steps_done(folder) < step and process.is_alive():
        time.sleep(0.002)


def final_arrays(folder):
    """The arrays of the last checkpoint, which is the run's end, and of the best."""
    from metarep_jax.train.checkpoints import Checkpoints  # noqa: F401  (orbax is imported where it is used)

    fitted = tiny.train(folder)
    return jax.tree.leaves((fitted.params, fitted.state)), fitted


def assert_same_run(folder, whole):
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    (ours, fitted), (theirs, wanted) = final_arrays(folder), final_arrays(whole)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (fitted.step, fitted.metrics) == (wanted.step, wanted.metrics)
    ours, theirs = (sorted(int(path.name) for path in (f / "checkpoints").iterdir()) for f in (folder, whole))
    assert ours == theirs == [200, 380, 400]


def test_a_run_killed_at_five_random_moments_ends_bit_identically(start_child, whole, tmp_path):
    chance = random.Random(time.time_ns())
    moments = sorted(chance.uniform(0, tiny.CONFIG.steps - 40) for _ in range(5))
    for moment in moments:
        process = start_child(tmp_path)
        wait_for_step(process, tmp_path, moment)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        assert finish(process) == -signal.SIGKILL, f"too late to kill: moments {moments}"
    assert finish(start_child(tmp_path)) == 0
    assert_same_run(tmp_path, whole)


def test_sigterm_saves_and_exits_with_143_and_the_run_goes_on(start_child, whole, tmp_path):
    process = start_child(tmp_path)
    wait_for_step(process, tmp_path, 90)
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process) == 143
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved >= steps_done(tmp_path)
    assert finish(start_child(tmp_path)) == 0
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
