"""Tables of whole rows: what is finished is skipped, what failed keeps nothing from being computed, times add up."""

import dataclasses

import pytest

from experiments.tables import omniglot_unsupervised
from experiments.tables.jobs import Job, run_jobs
from experiments.tables.omniglot_objectives import recipes
from experiments.tables.rows import OmniglotRowsConfig, Row, RowsConfig, finished, run_row
from metarep_jax.evaluate import Interval
from metarep_jax.pretrain import OBJECTIVES
from metarep_jax.train import Terminated

TABLE = "omniglot_unsupervised"


def measured(folder, seed):
    return {"5w1s": Interval(90.0 + seed, 0.5, 10), "20w1s": Interval(70.0, 1.0, 10)}


def row(measure=measured, **changed):
    made = Row(
        name="byol",
        columns=("5w1s", "20w1s"),
        protocol="p",
        settings={"steps": 3, "data": "omniglot"},
        measure=measure
        or (lambda folder, seed: {"5w1s": Interval(90.0 + seed, 0.5, 10), "20w1s": Interval(70, 1, 10)}),
        steps=3,
        minutes=1.0,
    )
    return dataclasses.replace(made, **changed)


def test_a_row_writes_a_cell_a_column_and_is_finished_then(tmp_path):
    config = RowsConfig(seeds=3)
    cells = run_row(TABLE, row(), tmp_path, config)
    assert [cell.cells["byol"]["5w1s"]["mean"] for cell in cells[:1]] == [91.0]
    assert cells[0].config["cell"]["seed_means"] == [90.0, 91.0, 92.0] and cells[0].seeds == [0, 1, 2]
    assert [dataclasses.asdict(cell) for cell in finished(tmp_path, row(), 3)] == [dataclasses.asdict(c) for c in cells]
    assert finished(tmp_path, row(), 4) == []
    assert finished(tmp_path, row(settings={"steps": 4, "data": "omniglot"}), 1) == []


def test_a_seed_measures_in_a_folder_of_its_own(tmp_path):
    seen = []

    def measure(folder, seed):
        seen.append((folder.relative_to(tmp_path).as_posix(), seed, folder.is_dir()))
        return {"5w1s": Interval(1.0, 0.1, 5), "20w1s": Interval(1.0, 0.1, 5)}

    run_row(TABLE, row(measure), tmp_path, RowsConfig(seeds=2))
    assert seen == [("byol/seed0", 0, True), ("byol/seed1", 1, True)]


def test_finished_jobs_are_skipped_and_a_failing_one_keeps_no_other_from_being_computed(capsys):
    done = []

    def fails():
        raise ValueError("no such data")

    jobs = [
        Job("first", fails, lambda: False),
        Job("second", lambda: done.append("second") or "second came", lambda: False),
        Job("third", lambda: done.append("third") or "", lambda: True),
    ]
    with pytest.raises(SystemExit) as ended:
        run_jobs(jobs)
    text = capsys.readouterr().out
    assert ended.value.code == 1 and done == ["second"] and "failed: first" in text and "no such data" in text
    assert run_jobs(jobs[1:]) and done == ["second", "second"]


def test_a_job_that_is_asked_to_end_ends_them_all():
    def asked():
        raise Terminated("now")

    with pytest.raises(Terminated, match="the same command goes on"):
        run_jobs([Job("first", asked, lambda: False), Job("second", asked, lambda: False)])


def test_every_objective_for_images_has_a_row():
    assert set(OBJECTIVES) - {"masked_lm"} <= set(recipes("short"))
    assert {"untrained", "best", "umtra", "cactus", "prototypical"} <= set(recipes("full"))


def test_a_budget_changes_the_steps_and_names_no_row_twice():
    for budget in ("trial", "short", "full"):
        assert list(recipes(budget)) == list(recipes("short"))
    assert recipes("full")["byol"].steps > recipes("short")["byol"].steps > recipes("trial")["byol"].steps


def test_the_plan_of_the_table_without_labels_shows_every_row(capsys, tmp_path):
    config = OmniglotRowsConfig(plan=True, run_folder=tmp_path)
    omniglot_unsupervised.main(omniglot_unsupervised.TABLE, config, lambda: omniglot_unsupervised.rows_of(config))
    text = capsys.readouterr().out
    assert all(name in text for name in recipes("short")) and "hours on 2 CPU cores" in text


def test_an_unknown_row_is_refused_with_those_there_are(capsys, tmp_path):
    config = OmniglotRowsConfig(rows=("bjol",), run_folder=tmp_path)
    with pytest.raises(SystemExit):
        omniglot_unsupervised.main(omniglot_unsupervised.TABLE, config, lambda: omniglot_unsupervised.rows_of(config))
    assert "byol" in " ".join(capsys.readouterr().out.split())
