"""Run folders: one process, one config, one set of inputs."""

import json
import os

import pytest

from metarep_jax.train import RunFolderInUse, open_run
from metarep_jax.train.storage.run_folder import hold_folder

FIT = {"steps": 5, "batch_size": 8, "accumulate": 1, "log_every": 10}


def open_once(folder, config, **more):
    """What the run was begun with, and now is."""
    with open_run(folder, config, **more) as run:
        return run


def recorded(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_run_folder_is_held_by_one_and_free_again_afterwards(tmp_path):
    with open_run(tmp_path / "run", {"seed": 1}) as run:
        assert not run.resumed
        with (
            pytest.raises(RunFolderInUse, match=rf"in use by another process \(pid {os.getpid()}\); wait"),
            hold_folder(tmp_path / "run"),
        ):
            pass
    with open_run(tmp_path / "run", {"seed": 1}) as run:
        assert run.resumed


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_is_no_run_folder(tmp_path, below):
    (tmp_path / "notes").write_text("of mine")
    with (
        pytest.raises(NotADirectoryError, match=r"notes is a file, no folder; give another --run-folder"),
        hold_folder(tmp_path / "notes" / below),
    ):
        pass


def test_a_run_folder_of_another_config_is_refused_and_stays_as_it_was(tmp_path):
    config = {"seed": 1, "train": {"steps": 5, "progress": True}, "folder": tmp_path}
    with open_run(tmp_path, config):
        pass
    before = (tmp_path / "config.json").read_text()
    with open_run(tmp_path, config | {"train": {"steps": 5, "progress": False, "added_later": None}}):
        pass
    changed = config | {"train": {"steps": 6, "progress": True}}
    with (
        pytest.raises(ValueError, match=r"another config \(train\.steps: 5 before, 6 now\)"),
        open_run(tmp_path, changed),
    ):
        pass
    assert (tmp_path / "config.json").read_text() == before
    assert json.loads(before)["folder"] == str(tmp_path)


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"), open_run(tmp_path, {}):
        pass


def test_settings_that_change_no_result_are_no_other_config(tmp_path):
    before = {"devices": 1, "data": {"name": "omniglot", "data_dir": "/a", "workers": 2}, "pretrain": {"train": FIT}}
    open_once(tmp_path, before)
    text = (tmp_path / "config.json").read_text()
    data = {"name": "omniglot", "data_dir": "/b", "cache_dir": "/c", "workers": 9, "text": {"tokenizer_from": "/d"}}
    free = {"log_every": 1, "keep": 9, "tensorboard": False, "checkpoint_every": 7, "steps_per_dispatch": 3}
    assert open_once(tmp_path, {"devices": 8, "data": data, "pretrain": {"train": FIT | free}}).resumed
    assert (tmp_path / "config.json").read_text() == text


def test_names_of_the_loops_settings_mean_something_else_elsewhere(tmp_path):
    open_once(tmp_path, {"learner": {"keep": 1, "steps": 3}})
    with pytest.raises(ValueError, match=r"\(learner\.keep: 1 before, 2 now; learner\.steps: 3 before, 4 now\)"):
        open_once(tmp_path, {"learner": {"keep": 2, "steps": 4}})


def test_another_number_of_steps_goes_on_where_the_caller_can_and_is_recorded_when_it_is_done(tmp_path):
    config, longer = ({"meta": {"train": FIT | {"steps": steps}, "epochs": None}} for steps in (5, 9))
    open_once(tmp_path, config)
    with pytest.raises(ValueError, match=r"another config \(meta\.train\.steps: 5 before, 9 now\)"):
        open_once(tmp_path, longer)

    def interrupted():
        with open_run(tmp_path, longer, other_steps=True) as run:
            assert run.changed_steps == {"meta.train.steps": (5, 9)}
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    assert recorded(tmp_path) == config
    assert open_once(tmp_path, longer, other_steps=True).changed_steps == {"meta.train.steps": (5, 9)}
    history = [{"setting": "meta.train.steps", "before": 5, "now": 9}]
    assert recorded(tmp_path) == longer | {"history": history}
    assert open_once(tmp_path, longer).changed_steps == {}


BIRDS = {"data": {"name": "folder birds, 90 images", "digest": "b1" * 32}}
CATS = {"data": {"name": "folder cats, 80 images", "digest": "ca" * 32}}


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (BIRDS, CATS, r"was begun on data folder birds, 90 images \(digest b1b1b1b1b1\), now there is data folder "
         r"cats, 80 images \(digest cacacacaca\); give another --run-folder"),
        (BIRDS, {"data": BIRDS["data"] | {"digest": "b2" * 32}}, r"data folder birds, 90 images has changed since the "
         r"run folder .* was begun \(digest b1b1b1b1b1 then, digest b2b2b2b2b2 now\)"),
        (BIRDS, BIRDS | {"start": CATS["data"]}, "was begun without a start, now there is start folder cats"),
        (BIRDS | {"teacher": CATS["data"]}, BIRDS, "was begun on teacher folder cats, .*, now there is no teacher;"),
    ],
)  # fmt: skip
def test_other_inputs_are_refused_with_both_named_and_nothing_is_written(tmp_path, before, now, message):
    open_once(tmp_path, {"seed": 1}, inputs=before)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        open_once(tmp_path, {"seed": 1}, inputs=now)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files
    assert recorded(tmp_path)["inputs"] == before


def test_a_model_that_was_moved_is_known_by_its_digest(tmp_path):
    inputs = {"start": {"name": "a model", "digest": "5"}}
    open_once(tmp_path, {"start": "runs/a", "distill": {"start": "x"}}, inputs=inputs)
    assert open_once(tmp_path, {"start": "runs/b", "distill": {"start": "y"}}, inputs=inputs).resumed


def test_a_folder_begun_before_inputs_were_recorded_still_opens(tmp_path):
    open_once(tmp_path, {"seed": 1})
    assert open_once(tmp_path, {"seed": 1}, inputs=BIRDS).resumed
    assert "inputs" not in recorded(tmp_path)
