"""Checkpoints: what is kept, damage, other configs, a full disk."""

import errno
import gc
import logging
import re
import shutil
from collections import namedtuple

import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.train.storage.arrays import load_tree, save_tree
from metarep_jax.train.storage.checkpoints import Checkpoints
from metarep_jax.train.storage.disk import explain_full_disk

TREE = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "n": np.int32(7), "b": np.ones(3, jnp.bfloat16)}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
        assert found[name].dtype == wanted[name].dtype


def write(folder, steps=(1, 2), **more):
    """One checkpoint a step, its arrays moved by the step."""
    with Checkpoints(folder, settings={"rate": 0.1}, **more) as checkpoints:
        for step in steps:
            checkpoints.save(
                step, {**TREE, "w": TREE["w"] + step}, {"step": step}, extra_arrays={"['partner']": np.arange(step)}
            )


def restored(folder, settings=None):
    with Checkpoints(folder, settings=settings or {"rate": 0.1}) as checkpoints:
        return checkpoints.restore_last(TREE)


def test_what_was_saved_comes_back_with_its_dtypes(tmp_path):
    write(tmp_path)
    found = restored(tmp_path)
    assert_equal(found.tree, {**TREE, "w": TREE["w"] + 2})
    assert (found.step, found.extra) == (2, {"step": 2})
    assert found.extra_arrays["['partner']"].tolist() == [0, 1]


def test_the_best_is_kept_beside_the_latest_and_an_undefined_score_is_worse_than_any(tmp_path):
    scores = {1: 0.5, 2: 0.9, 3: None, 4: float("nan"), 5: 0.7, 6: 0.1, 7: float("inf")}
    with Checkpoints(tmp_path, keep=2, scored=True) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, TREE, {}, score)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 6, 7]
        assert checkpoints.restore_best(TREE).step == 2
        assert checkpoints.restore_last(TREE).step == 7


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_byte_in_any_file_is_noticed_or_does_not_matter(tmp_path, caplog):
    """Whatever file is hit: either all arrays come back as they were, or those of the checkpoint before, said aloud."""
    write(tmp_path / "whole")
    files = [file.relative_to(tmp_path / "whole") for file in (tmp_path / "whole" / "2").rglob("*") if file.is_file()]
    fell_back = 0
    for number, name in enumerate(file for file in files if (tmp_path / "whole" / file).stat().st_size):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(tmp_path / "whole", folder)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 0x10
        (folder / name).write_bytes(data)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = restored(folder)
        assert_equal(found.tree, {**TREE, "w": TREE["w"] + found.step})
        if found.step == 1:
            fell_back += 1
            assert re.search(r"checkpoint 2 is damaged .*; moved to .*damaged/2, using the one before", caplog.text)
            assert (folder.parent / "damaged" / "2").is_dir()
    assert fell_back > 0
    gc.collect()  # errors that the reader of damaged files left unawaited are raised here and not in a later test


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_with_all_checkpoints_damaged_there_is_nothing_to_resume(tmp_path):
    write(tmp_path / "checkpoints")
    for file in (tmp_path / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert restored(tmp_path / "checkpoints") is None
    gc.collect()


def test_another_config_is_refused_and_nothing_is_lost(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another config \(rate: 0\.1 before, 0\.2 now\)"):
        restored(tmp_path, {"rate": 0.2})
    with (
        pytest.raises(ValueError, match=r"\['w'\].*\[3, 4\]\] before, .*\[5, 4\]\] now"),
        Checkpoints(tmp_path, settings={"rate": 0.1}) as checkpoints,
    ):
        checkpoints.restore_last({**TREE, "w": np.zeros((5, 4), np.float32)})
    assert restored(tmp_path).step == 2


def test_a_damaged_score_costs_its_checkpoint_and_not_the_run(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, scored=True) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, TREE, {}, score=float(step))
    (folder / "2" / "metrics" / "metrics").write_text("bad")
    with Checkpoints(folder, scored=True) as checkpoints:
        assert checkpoints.restore_best(TREE).step == 1
    assert re.search(r"checkpoints/2/metrics/metrics is damaged .* moved to .*/damaged/2", caplog.text)


def test_how_progress_is_shown_is_no_other_config(tmp_path):
    write(tmp_path)
    assert restored(tmp_path, {"rate": 0.1, "train": {"progress": False}}).step == 2


def test_a_full_disk_is_said_and_earlier_checkpoints_are_kept(tmp_path, monkeypatch):
    write(tmp_path)
    usage = namedtuple("usage", "total used free")
    with Checkpoints(tmp_path, settings={"rate": 0.1}) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 99, 1))
        with pytest.raises(OSError, match=r"could not be written at step 3: the disk is full") as raised:
            checkpoints.save(3, TREE, {})
        assert raised.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert restored(tmp_path).step == 2


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="other"), explain_full_disk(tmp_path, "written"):
        raise RuntimeError("other")


def test_a_saved_tree_comes_back_and_replaces_the_one_before(tmp_path):
    folder = tmp_path / "arrays"
    for shift in (1, 2):
        save_tree(folder, {"inner": {**TREE, "w": TREE["w"] + shift}})
    assert_equal(load_tree(folder)["inner"], {**TREE, "w": TREE["w"] + 2})
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]
    folder.rename(tmp_path / "arrays.old")  # what a kill between the two renames leaves
    assert_equal(load_tree(folder)["inner"], {**TREE, "w": TREE["w"] + 2})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_or_missing_tree_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no saved arrays"):
        load_tree(tmp_path / "arrays")
    save_tree(tmp_path / "arrays", TREE)
    largest = max((file for file in tmp_path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0x10
    largest.write_bytes(data)
    with pytest.raises(ValueError, match="are damaged"):
        load_tree(tmp_path / "arrays")
    gc.collect()
