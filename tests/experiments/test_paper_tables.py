"""The tables: their plans, cells that are stopped and go on, and tables merged from files in any order."""

import dataclasses
import itertools
import json
import os
import signal
import threading
from typing import get_args

import numpy as np
import pytest

from experiments.tables import engine, omniglot_supervised, sinusoid
from experiments.tables.engine import Budget, compute_pieces, merge, merged_table
from experiments.tables.omniglot_plan import settings_of_training, trainings, way_and_shot
from experiments.tables.omniglot_supervised import COLUMNS, GRID, METHODS, MORE, SupervisedConfig, piece_of, plan
from experiments.tables.published import ROWS, published
from metarep_jax.data import DataConfig, Splits, find_protocol, joined_pools, pool_of_arrays
from metarep_jax.encoders import EncoderConfig
from metarep_jax.evaluate import Interval
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.report.cells import best_of, cell_result, read_cells
from metarep_jax.report.pieces import is_finished, plain, same_identity
from metarep_jax.report.results import read_result, write_result
from metarep_jax.train import FitConfig, OptimiserConfig, Terminated, read_lines
from metarep_jax.train.storage import wall_clock
from metarep_jax.types import EpisodeSpec

TABLE = "omniglot_supervised"
SIZE = 6


# Plans ----------------------------------------------------------------------------------------------------------------


def test_every_method_has_a_plan_for_every_column_and_budget():
    budgets: tuple[Budget, ...] = get_args(Budget)
    for budget in budgets:
        for row, column in itertools.product(METHODS, COLUMNS):
            made = plan(row, column, budget)
            assert (made.row, made.column, f"{made.test.way}w{made.test.shot}s") == (row, column, column)
            assert made.train_minutes > 0 and made.test_minutes > 0
    assert set(GRID) | set(MORE) == set(METHODS)


def test_cells_that_share_a_training_run_train_alike():
    """Otherwise the second one would find its settings differ from the folder's."""
    for budget in ("short", "full"):
        plans = [plan(row, column, budget) for row in METHODS for column in COLUMNS]
        for group in trainings(plans).values():
            assert len({json.dumps(settings_of_training(made), sort_keys=True) for made in group}) == 1


def test_the_short_grid_takes_at_most_eight_hours():
    groups = trainings([plan(row, column, "short") for row in GRID for column in COLUMNS])
    minutes = sum(group[0].train_minutes + sum(made.test_minutes for made in group) for group in groups.values())
    assert 4 * 60 < minutes < 8 * 60
    costs = [group[0].train_minutes for group in groups.values()]
    assert costs == sorted(costs)


def test_the_estimate_of_a_second_order_step_is_what_the_papers_settings_cost():
    """11, 54, 85 and 427 GFLOP, counted from the convolutions, the first layer's missing input gradient included."""
    found = [plan("maml", column, "full").train_gflop for column in COLUMNS]
    np.testing.assert_allclose(found, [11, 54, 85, 427], rtol=0.08)


def test_a_setting_that_is_added_later_does_not_make_a_finished_cell_another():
    piece = piece_of(plan("maml", "5w1s", "short"), SupervisedConfig())
    now = plain(piece.settings)
    learner = now["training"]["learner"]

    def kept(learner, version=1):
        training = {**now["training"], "learner": learner}
        config = {"settings": {**now, "training": training}, "version": version}
        return dataclasses.replace(cell("maml", "5w1s", 98.5), config=config)

    earlier = {name: value for name, value in learner.items() if name != "remat"}
    assert "remat" in learner and same_identity(kept(earlier), piece)
    assert not same_identity(kept({**learner, "remat": True}), piece)
    assert not same_identity(kept({**learner, "gone": 1}), piece)
    assert not same_identity(kept(learner, version=2), piece)


# Published numbers ----------------------------------------------------------------------------------------------------


def test_published_numbers_are_read_with_their_intervals():

    def number(*place):
        found = published(*place)
        assert found is not None
        return found

    assert number(TABLE, "maml", "20w1s")[:2] == (95.8, 0.3)
    assert number(TABLE, "prototypical", "5w5s")[:2] == (99.7, None)
    assert published(TABLE, "anil", "5w1s") is None and published(TABLE, "boil", "5w1s") is None
    assert number("sinusoid", "meta_sgd", "10shot")[:2] == (0.53, 0.09)
    assert number("navigation", "maml", "1 update").mean == -11.68
    assert not number(TABLE, "ridge", "5w1s").checked
    for table, rows in ROWS.items():
        for row, (numbers, _) in rows.items():
            assert len(numbers.split()) == len(engine.COLUMNS[table]), row


# Cells and their merging ----------------------------------------------------------------------------------------------


def cell(row, column, mean, budget="short", seeds=(0,), training=None, steps=10):
    return cell_result(
        TABLE,
        row,
        column,
        Interval(mean, 0.2, 600),
        budget=budget,
        command="python -m trial",
        protocol="p",
        seeds=seeds,
        settings={"steps": steps, "data": "omniglot"},
        shown={"steps": str(steps), "device": "abacus"},
        training=training or f"{row}/{column}",
        train_s=60.0,
        evaluate_s=2.0,
        beside=published(TABLE, row, column),
    )


CELLS = [
    cell("prototypical", "5w1s", 98.7, training="prototypical/1-shot"),
    cell("prototypical", "20w1s", 95.4, training="prototypical/1-shot"),
    cell("maml", "20w1s", 96.2),
    cell("maml", "5w1s", 98.5),
    cell("maml", "5w1s", 97.0, seeds=(0, 1)),
    cell("maml", "5w1s", 99.0, budget="trial", seeds=(0, 1, 2)),
    cell("boil", "5w1s", 97.0),
]


def table_of(cells):
    return merged_table(omniglot_supervised.TABLE, cells, "c")


def test_merging_in_any_order_gives_the_same_table():
    first = dataclasses.asdict(table_of(CELLS))
    for order in ([6, 5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 6, 4, 2], [4, 3, 5, 6, 2, 0, 1]):
        assert dataclasses.asdict(table_of([CELLS[i] for i in order])) == first
    assert list(first["cells"]) == ["maml", "boil", "prototypical"]
    assert list(first["cells"]["maml"]) == ["5w1s", "5w1s_published", "20w1s", "20w1s_published"]


def test_a_larger_budget_or_more_seeds_win_whatever_the_number():
    chosen = best_of(CELLS)
    assert chosen["maml", "5w1s"].cells["maml"]["5w1s"]["mean"] == 97.0
    more = cell("maml", "5w1s", 12.0, budget="full")
    assert best_of([more, *CELLS])["maml", "5w1s"] is more
    defined_anew = dataclasses.replace(cell("maml", "5w1s", 3.0), config={**CELLS[3].config, "version": 2})
    assert best_of([more, defined_anew, *CELLS])["maml", "5w1s"] is defined_anew


def test_between_equals_new_cells_take_the_place_of_kept_ones_and_lesser_ones_do_not():
    old, new = (cell("boil", "5w1s", mean) for mean in (97.0, 12.0))
    assert best_of([new], [old])["boil", "5w1s"] is new
    longer = cell("boil", "5w1s", 12.0, budget="full")
    assert best_of([new], [longer])["boil", "5w1s"] is longer and best_of([], [old])["boil", "5w1s"] is old


def test_between_cells_made_alike_no_number_decides():
    for means in ((12.0, 97.0), (97.0, 12.0)):
        first, last = (dataclasses.replace(cell("boil", "5w1s", m), commit=c) for m, c in zip(means, "ab", strict=True))
        assert best_of([first, last])["boil", "5w1s"] is best_of([last, first])["boil", "5w1s"] is last


def test_a_training_run_that_cells_share_counts_once():
    """Two cells of one training: 60 s and twice 2 s of evaluation."""
    assert table_of(CELLS[:2]).wall_clock_s == 64.0
    assert table_of(CELLS[2:4]).wall_clock_s == 124.0


def test_a_cell_says_how_it_stands_to_what_was_published():
    details = {c.config["row"] + c.config["column"]: c.config["cell"] for c in CELLS[:4]}
    assert details["prototypical5w1s"]["standing"] == "below by 0.10"  # 98.7 ± 0.2 against 98.8
    assert details["prototypical20w1s"]["standing"] == "below by 0.60"
    assert details["maml20w1s"]["standing"] == "above" and details["maml5w1s"]["standing"] == "within"
    assert "standing" not in CELLS[-1].config["cell"]


def merge_into(results, folder):
    return merge(omniglot_supervised.TABLE, [folder], results)


def test_merge_keeps_cells_and_writes_the_table_without_any_data(tmp_path, capsys):
    for i, result in enumerate(CELLS):
        write_result(tmp_path / "machine" / str(i) / "result.json", result)
    merge_into(tmp_path / "results", tmp_path / "machine")
    table = read_result(tmp_path / "results" / f"{TABLE}.json")
    assert table.cells["maml"]["5w1s"]["mean"] == 97.0
    assert len(list((tmp_path / "results" / "cells" / TABLE).glob("*.json"))) == 5
    write_result(tmp_path / "other" / "x" / "result.json", cell("ridge", "5w5s", 99.0))
    merge_into(tmp_path / "results", tmp_path / "other")
    again = read_result(tmp_path / "results" / f"{TABLE}.json")
    assert again.cells == {**table.cells, "ridge": again.cells["ridge"]}
    assert "98.5 ± 0.4" not in capsys.readouterr().err


def test_folders_without_cells_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_cells(TABLE, [tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no finished cell"):
        read_cells(TABLE, [tmp_path / "empty"])


# Wall-clock -----------------------------------------------------------------------------------------------------------


def test_time_adds_up_over_processes_and_a_killed_one_leaves_that_of_its_steps(tmp_path):
    with wall_clock.counted(tmp_path, "abacus", 100):
        pass
    (tmp_path / wall_clock.FILE).write_text('{"seconds": 50.0, "devices": ["abacus"]}')
    with pytest.raises(KeyError), wall_clock.counted(tmp_path, "loom", 100):
        raise KeyError
    assert wall_clock.seconds_spent(tmp_path) == 50.0 and wall_clock.devices_used(tmp_path) == ["abacus", "loom"]
    lines = [{"step": 10, "seconds_per_step": 2.0}, {"step": 40, "seconds_per_step": 3.0}]
    (tmp_path / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert wall_clock.seconds_spent(tmp_path) == 110.0


# A cell from end to end -----------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The table on a few classes of noisy patterns instead of Omniglot."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 200, (12, 1, SIZE, SIZE, 1))
    images = (patterns + random.integers(0, 50, (12, 8, SIZE, SIZE, 1))).astype(np.uint8).reshape(-1, SIZE, SIZE, 1)
    label = np.repeat(np.arange(12), 8)

    def part(classes):
        rows = np.isin(label, classes)
        return pool_of_arrays(images[rows], np.unique(label[rows], return_inverse=True)[1])

    names = {part: tuple("abcdef") for part in ("train", "val", "test")}
    data, protocol = DataConfig(name="omniglot"), find_protocol("maml", "omniglot")
    splits = Splits(part(range(6)), part(range(6, 9)), part(range(9, 12)), names, protocol, data)
    monkeypatch.setattr(engine, "read_once", lambda data: splits)
    return SupervisedConfig(data=data, run_folder=tmp_path / "grid", devices=2)


def tiny(steps=40):
    """MAML's plan, scaled down."""
    made = plan("maml", "5w1s", "short")
    episode = EpisodeSpec(2, 1, 1)
    fit = FitConfig(
        steps=steps, batch_size=2, validate_every=20, log_every=10, checkpoint_every=10, steps_per_dispatch=5,
        tensorboard=False, progress=False,
    )  # fmt: skip
    meta = dataclasses.replace(
        made.meta, learner=LearnerConfig("maml", inner_lr=0.1, inner_steps=1, test_steps=1), episode=episode,
        train=fit, validation_episodes=4,
        augment="none", optimiser=OptimiserConfig(name="adam", learning_rate=1e-3),
    )  # fmt: skip
    return dataclasses.replace(
        made, encoder=EncoderConfig(name="mlp", width=4), meta=meta, test=episode, validate_on=episode, episodes=6,
        training="maml/tiny",
    )  # fmt: skip


def run(cells, config):
    """Computes cells in the folder of the config."""
    return compute_pieces(TABLE, [piece_of(cell, config) for cell in cells], config.folder(TABLE), config)


def result_of(cell, config):
    return piece_of(cell, config).cell(config.folder(TABLE), cell.column)


def test_a_cell_that_is_stopped_goes_on_and_ends_as_one_that_was_not(config, capsys, monkeypatch):
    whole = dataclasses.replace(config, run_folder=config.run_folder.parent / "whole")
    assert run([tiny()], whole)
    folder = config.folder(TABLE) / "maml" / "tiny" / "seed0"
    before = omniglot_supervised.metatrain

    def stopped_after(*args, **kwargs):
        """SIGTERM, as soon as the training has written a line."""

        def watch():
            while not read_lines(folder / "metrics.jsonl") and not done.wait(0.001):
                pass
            os.kill(os.getpid(), signal.SIGTERM)

        done = threading.Event()
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            return before(*args, **kwargs)
        finally:
            done.set()
            watcher.join()

    monkeypatch.setattr(omniglot_supervised, "metatrain", stopped_after)
    with pytest.raises(Terminated):
        run([tiny()], config)
    assert not result_of(tiny(), config).is_file() and 0 < read_lines(folder / "metrics.jsonl")[-1]["step"] < 40
    spent = wall_clock.seconds_spent(folder)
    monkeypatch.setattr(omniglot_supervised, "metatrain", before)
    assert run([tiny()], config)
    ours, wanted = (read_result(result_of(tiny(), there)) for there in (config, whole))
    assert ours.cells == wanted.cells and ours.config["settings"] == wanted.config["settings"]
    assert ours.config["train_s"] > spent and ours.seeds == [0]
    assert ours.config["cell"] | {"time": "", "device": ""} == wanted.config["cell"] | {"time": "", "device": ""}
    assert ours.config["cell"]["norm"] == "transductive" and ours.config["cell"]["protocol"] == "maml"
    capsys.readouterr()
    assert run([tiny()], config) and capsys.readouterr().out == ""  # finished cells are skipped


def test_the_time_limit_ends_a_grid_cleanly_between_two_lines_of_work(config, capsys):
    endless = tiny(steps=1_000_000)
    assert not run([endless], dataclasses.replace(config, minutes=0.02))
    assert "time is up; 1 left (maml 5w1s)" in " ".join(capsys.readouterr().out.split())


def test_a_failing_cell_keeps_no_other_from_being_computed(config, capsys):
    wrong = dataclasses.replace(tiny(steps=20), row="anil", test=EpisodeSpec(2, 9, 1))  # classes have 8 images
    with pytest.raises(SystemExit) as ended:
        run([wrong, tiny(steps=20)], config)
    assert ended.value.code == 1 and "failed: anil 5w1s" in capsys.readouterr().out
    assert result_of(tiny(), config).is_file()


def test_a_training_folder_of_other_settings_is_kept(config, capsys):
    assert run([tiny(steps=20)], config)
    with pytest.raises(SystemExit):
        run([tiny(steps=30)], config)
    text = " ".join(capsys.readouterr().out.split())
    assert "another config" in text and "steps" in text
    other = dataclasses.replace(tiny(steps=20), encoder=EncoderConfig(name="mlp", width=5))
    with pytest.raises(SystemExit):
        run([other], config)
    text = " ".join(capsys.readouterr().out.split())
    assert "another config" in text and "width" in text
    assert not is_finished(piece_of(other, config), config.folder(TABLE), 1)


def test_joined_pools_number_the_second_ones_classes_after_the_first_ones():
    first = pool_of_arrays(np.arange(4)[:, None], np.array([0, 0, 1, 1]))
    second = pool_of_arrays(np.arange(4, 7)[:, None], np.array([1, 0, 0]))
    both = joined_pools(first, second)
    np.testing.assert_array_equal(both.count, [2, 2, 2, 1])
    rows = [sorted(np.asarray(both.inputs[both.members[c, : both.count[c]], 0])) for c in range(4)]
    assert rows == [[0, 1], [2, 3], [5, 6], [4]]


# The command lines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["--rows", "mmal"], "maml"),
        (["--columns", "5w2s"], "5w1s"),
        (["--seeds", "0"], "at least 1"),
        (["--minutes", "-3"], "positive"),
        (["somewhere"], "--merge"),
        (["--merge", "nowhere"], "nowhere"),
    ],
)
def test_the_grid_refuses_what_it_does_not_know(capsys, words, known):
    with pytest.raises(SystemExit) as ended:
        omniglot_supervised.main(words)
    output = capsys.readouterr()
    assert ended.value.code not in (0, None) and known in output.out + output.err
    assert "Traceback" not in output.out + output.err


def test_a_folder_without_data_is_named_before_anything_is_trained(capsys, tmp_path):
    (tmp_path / "images").mkdir()
    words = ["--data.data-dir", tmp_path / "images", "--run-folder", tmp_path / "runs", "--data.cache-dir", tmp_path]
    with pytest.raises(SystemExit) as ended:
        omniglot_supervised.main([*map(str, words), "--rows", "maml"])
    assert ended.value.code == 1 and "images_background" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "runs").exists()


def test_the_plan_shows_every_cell_and_the_hours(capsys, tmp_path):
    omniglot_supervised.main(["--plan", "--run-folder", str(tmp_path)])
    text = capsys.readouterr().out
    assert all(f"{row} {column}" in text for row in GRID for column in COLUMNS)
    assert "hours on 2 CPU cores" in text


@pytest.mark.parametrize(
    ("words", "known"), [(["--rows", "matching"], "regression"), (["--columns", "3shot"], "5shot")]
)
def test_the_sinusoid_table_refuses_what_it_cannot_take(capsys, words, known):
    with pytest.raises(SystemExit) as ended:
        sinusoid.main(words)
    output = capsys.readouterr()
    assert ended.value.code not in (0, None) and known in output.out + output.err


@pytest.mark.slow
def test_the_sinusoid_table_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sinusoid, "STEPS", (0, 1))
    monkeypatch.setattr(sinusoid, "SHOWN", (0, 1))
    words = ["--budget", "trial", "--run-folder", str(tmp_path), "--test-tasks", "20", "--rows", "maml", "oracle"]
    sinusoid.main([*words, "--columns", "5shot"])
    table = read_result(tmp_path / "trial" / "table.json")
    assert table.cells["maml"]["5shot_published"] == {"mean": 1.13, "ci95": 0.18, "n": 1}
    assert table.cells["oracle"]["5shot"]["n"] == 20 and table.config["cells"]["oracle"]["5shot"]["norm"] == "none"
    assert (tmp_path / "trial" / "figures" / "adaptation.png").stat().st_size > 1000


def test_the_methods_that_are_not_adapted_are_judged_as_they_are():
    assert not sinusoid.methods(("oracle",))["oracle"].adapts
    assert way_and_shot("20w5s") == (20, 5)
