"""Pieces of tables: what is finished is skipped, and what is missing is named before anything is trained."""

import dataclasses

import pytest

from experiments.tables import omniglot_unsupervised
from experiments.tables.engine import OmniglotConfig, TableConfig, compute_pieces, run_table
from experiments.tables.omniglot_objectives import recipes
from metarep_jax.evaluate import Interval
from metarep_jax.pretrain import OBJECTIVES
from metarep_jax.report.pieces import Judged, Piece, finished, run_piece

TABLE = "omniglot_unsupervised"


def judge(seeds):
    return [Judged({"5w1s": Interval(90.0 + k, 0.5, 10), "20w1s": Interval(70.0, 1.0, 10)}) for k in range(len(seeds))]


def piece(train=lambda folder, seed: seed, **changed):
    made = Piece(
        row="byol",
        columns=("5w1s", "20w1s"),
        protocol="p",
        settings={"steps": 3, "data": "omniglot"},
        train=train,
        judge=judge,
        steps=3,
        minutes=1.0,
    )
    return dataclasses.replace(made, **changed)


def test_a_piece_writes_a_cell_a_column_and_is_finished_then(tmp_path):
    cells = run_piece(TABLE, piece(), tmp_path, seeds=3, budget="short", command="c")
    assert [cell.cells["byol"]["5w1s"]["mean"] for cell in cells[:1]] == [91.0]
    assert cells[0].config["cell"]["seed_means"] == [90.0, 91.0, 92.0] and cells[0].seeds == [0, 1, 2]
    kept = finished(piece(), tmp_path, 3)
    assert [dataclasses.asdict(cell) for cell in kept] == [dataclasses.asdict(c) for c in cells]
    assert finished(piece(), tmp_path, 4) == []
    assert finished(piece(settings={"steps": 4, "data": "omniglot"}), tmp_path, 1) == []
    assert finished(piece(version=2), tmp_path, 1) == []


def test_a_seed_is_trained_in_a_folder_of_its_own(tmp_path):
    seen = []

    def train(folder, seed):
        seen.append((folder.relative_to(tmp_path).as_posix(), seed, folder.is_dir()))

    run_piece(TABLE, piece(train), tmp_path, seeds=2, budget="short", command="c")
    assert seen == [("byol/seed0", 0, True), ("byol/seed1", 1, True)]


def test_data_that_are_missing_are_named_before_anything_is_trained(tmp_path):
    def check():
        raise FileNotFoundError("no images_background")

    with pytest.raises(FileNotFoundError, match="images_background"):
        compute_pieces(TABLE, [piece(), piece(row="simclr", check=check)], tmp_path / "runs", TableConfig())
    assert not (tmp_path / "runs").exists()


def test_every_objective_for_images_has_a_row():
    assert set(OBJECTIVES) - {"masked_lm"} <= set(recipes("short"))
    assert {"untrained", "best", "umtra", "cactus", "prototypical"} <= set(recipes("full"))


def test_a_budget_changes_the_steps_and_names_no_row_twice():
    for budget in ("trial", "short", "full"):
        assert list(recipes(budget)) == list(recipes("short"))
    assert recipes("full")["byol"].steps > recipes("short")["byol"].steps > recipes("trial")["byol"].steps


def test_the_plan_of_the_table_without_labels_shows_every_row(capsys, tmp_path):
    config = OmniglotConfig(plan=True, run_folder=tmp_path)
    run_table(omniglot_unsupervised.TABLE, config, omniglot_unsupervised.pieces_of)
    text = capsys.readouterr().out
    assert all(name in text for name in recipes("short")) and "hours on 2 CPU cores" in text


def test_an_unknown_row_is_refused_with_those_there_are(capsys, tmp_path):
    config = OmniglotConfig(rows=("bjol",), run_folder=tmp_path)
    with pytest.raises(SystemExit):
        run_table(omniglot_unsupervised.TABLE, config, omniglot_unsupervised.pieces_of)
    assert "byol" in " ".join(capsys.readouterr().out.split())
