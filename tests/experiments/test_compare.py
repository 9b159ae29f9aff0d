"""Runs are compared episode by episode where the episodes are the same, and several seeds give means."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import cli
from experiments.cli import CommonConfig, Report, run_experiment
from experiments.compare import main
from metarep_jax.data import DataConfig, splits_from_arrays
from metarep_jax.evaluate import interval
from metarep_jax.report.episodes import load_episodes, save_episodes
from metarep_jax.report.results import Cell, make_result, read_result, write_result

HARD = np.linspace(-20, 20, 50)  # what an episode is worth to any model


def finished(folder, values, seed=0, data="d1"):
    """A finished run whose row "student" has these accuracies by episode."""
    folder.mkdir(parents=True)
    cells = {"student": {"5w1s": Cell(**interval(values).cell())}}
    about = {"name": "metatrain", "command": "python -m experiments.metatrain", "config": {}, "protocol": "glyphs"}
    write_result(folder / "result.json", make_result(**about, seeds=[seed], cells=cells, wall_clock_s=1.0))
    save_episodes(folder, {"student": {"5w1s": values}}, data=data, protocol="glyphs", seed=str(seed))
    return folder


def report_of(tmp_path, *folders):
    main([*map(str, folders), "--folder", str(tmp_path / "out")])
    return (tmp_path / "out" / "report.md").read_text()


def test_a_small_difference_shows_where_the_episodes_are_the_same(tmp_path):
    one = finished(tmp_path / "a", 61 + HARD)
    two = finished(tmp_path / "b", 60 + HARD + np.tile([0.5, -0.5], 25))
    said = report_of(tmp_path, one, two)
    assert "student, a less b: 5w1s +1.00 ± 0.14 (beyond chance, paired by episode)." in said
    assert read_result(tmp_path / "out" / "result.json").cells.keys() == {"a: student", "b: student"}


def test_other_episodes_are_compared_as_independent_numbers(tmp_path):
    one, two = finished(tmp_path / "a", 61 + HARD), finished(tmp_path / "b", 60 + HARD, data="d2")
    assert "5w1s +1.00 ± 4.66 (within chance, as of independent episodes)" in report_of(tmp_path, one, two)


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
    one = finished(tmp_path / "a", 61 + HARD)
    for args, message in [
        ([one], "give two or more folders of finished runs, got 1"),
        ([one, tmp_path / "none"], "none holds no result.json"),
        ([one, one], "the same run is given twice"),
        ([one, finished(tmp_path / "b", HARD), "--rows", "teacher"], "has none of the rows teacher; it has: student"),
    ]:
        with pytest.raises(SystemExit):
            main([*map(str, args), "--folder", str(tmp_path / "out")])
        assert message in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()


def test_rows_of_the_same_episodes_are_kept_beside_those_that_come_later(tmp_path):
    save_episodes(tmp_path, {"a": {"5w1s": HARD}}, data="d")
    save_episodes(tmp_path, {"b": {"5w1s": HARD}}, data="d")
    assert load_episodes(tmp_path).values.keys() == {"a", "b"}
    save_episodes(tmp_path, {"c": {"5w1s": HARD}}, data="e")
    assert load_episodes(tmp_path).values.keys() == {"c"}


def test_several_seeds_are_trained_one_after_the_other_and_give_their_means(tmp_path, monkeypatch):
    images = np.zeros((8, 8, 8, 1), np.uint8)
    splits = splits_from_arrays(train=(images, np.arange(8) % 2), test=(images, 2 + np.arange(8) % 2))
    monkeypatch.setattr(cli, "read_data", lambda data: splits)
    seen = []

    def work(config, splits, compute):
        seen.append((config.seed, compute.seed, compute.folder.name))
        return Report({"model": {"5w1s": Cell(mean=60.0 + compute.seed, ci95=1.0, n=10)}})

    config = dataclasses.replace(CommonConfig(data=DataConfig("glyphs")), run_folder=tmp_path / "run", seed=3, seeds=2)
    run_experiment("metatrain", work, config)
    assert seen == [(3, 3, "seed3"), (4, 4, "seed4")]
    result = read_result(tmp_path / "run" / "result.json")
    assert result.cells["model"]["5w1s"]["mean"] == pytest.approx(63.5)
    assert result.cells["model"]["5w1s"]["ci95"] == pytest.approx(12.706 * 0.5, rel=1e-3)  # Student's, of two seeds
    assert (result.seeds, read_result(tmp_path / "run" / "seed3" / "result.json").seeds) == ([3, 4], [3])
    run_experiment("metatrain", work, dataclasses.replace(config, seeds=3))  # one more seed is no other run
    assert seen[-1] == (5, 5, "seed5")
    assert "seeds" not in json.loads((tmp_path / "run" / "config.json").read_text())
