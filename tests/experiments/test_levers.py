"""The table of levers: what each row changes, and what rows share."""

import dataclasses

import pytest

from experiments.tables.engine import OmniglotConfig
from experiments.tables.omniglot_levers import TABLE, levers, pieces_of


@pytest.mark.parametrize("budget", ["trial", "short", "full"])
def test_a_row_changes_one_thing_of_the_base(budget):
    found = levers(budget)
    base = found["base"]
    for name, lever in found.items():
        changed = {field for field in vars(base) if getattr(lever, field) != getattr(base, field)} - {"note", "ms"}
        trained_anew = {"training"} | changed & {"pretrain", "encoder"}
        allowed = [trained_anew, {"whiten"}, {"views"}, {"projector"}, {"distilled"}, {"rounds", "series", "after"}]
        if name in ("round_3_views_32", "round_3_less_whitened"):
            allowed = [{"rounds", "series", "after", "views"}, {"rounds", "series", "after", "whiten"}]
        if name == "pooled_round":
            allowed = [{"training", "encoder", "rounds", "series", "after", "whiten"}]
        assert name == "base" or changed in allowed, (name, changed)


def test_rows_that_share_a_training_train_alike_and_no_others_do():
    for budget in ("trial", "short", "full"):
        made: dict[str, list] = {}
        for lever in levers(budget).values():
            made.setdefault(lever.training, []).append((lever.pretrain, lever.encoder))
        assert all(first == each for first, *rest in made.values() for each in rest)
        assert len({str(first) for first, *_ in made.values()}) == len(made)


def test_rows_of_a_series_of_rounds_share_its_settings():
    series: dict[str, list] = {}
    for lever in levers("short").values():
        if lever.rounds:
            series.setdefault(lever.series, []).append(lever)
    for rows in series.values():
        assert len({str(row.rounds) for row in rows}) == 1
        assert all(1 <= row.after <= row.rounds.rounds for row in rows)


def test_every_row_says_what_it_changes_and_counts_a_shared_training_once():
    rows = pieces_of(OmniglotConfig())
    assert [row.row for row in rows] == list(TABLE.order)
    assert all(row.shown["note"] for row in rows)
    by_name = {row.row: row.minutes for row in rows}
    assert by_name["views_8"] == by_name["round_2"] == by_name["projector_kept"] == 0.5 < by_name["base"]
    assert by_name["self_distilled"] == by_name["base"]
    assert all(dataclasses.asdict(row)["columns"] == ("5w1s", "20w1s") for row in rows)
