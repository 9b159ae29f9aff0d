"""Committed cells: their settings, written by any earlier version, are those that their rows have today."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.tables import (
    intents,
    label_efficiency,
    navigation,
    omniglot_levers,
    omniglot_supervised,
    omniglot_unsupervised,
    sinusoid,
    spoken_digits,
)
from experiments.tables.engine import RESULTS, OmniglotConfig
from metarep_jax.report.migrate import migrated_settings
from metarep_jax.report.pieces import plain, same_identity
from metarep_jax.report.results import read_result

PIECES = {
    "omniglot_supervised": omniglot_supervised.pieces_of(omniglot_supervised.SupervisedConfig()),
    "omniglot_unsupervised": omniglot_unsupervised.pieces_of(OmniglotConfig()),
    "omniglot_levers": omniglot_levers.pieces_of(OmniglotConfig()),
    "label_efficiency": label_efficiency.pieces_of(OmniglotConfig()),
    "intents": intents.pieces_of(intents.IntentsConfig()),
    "spoken_digits": spoken_digits.pieces_of(spoken_digits.SpokenDigitsConfig()),
    "sinusoid": sinusoid.pieces_of(sinusoid.SinusoidConfig(budget="full")),
    "navigation": navigation.pieces_of(navigation.NavigationConfig()),
}
# Tables whose definition changed since their cells were measured, with the version of these.
MEASURED_BEFORE = {
    "spoken_digits": (1, "the probes' logistic regression ended after 30 steps of L-BFGS; it goes on to convergence")
}


def cells_of(table):
    """The committed cells of a table, with their pieces."""
    pieces = {(piece.row, column): piece for piece in PIECES[table] for column in piece.columns}
    cells = [read_result(file) for file in sorted((RESULTS / "cells" / table).glob("*.json"))]
    return [(cell, pieces[cell.config["row"], cell.config["column"]]) for cell in cells]


@pytest.mark.parametrize("table", sorted(folder.name for folder in (RESULTS / "cells").iterdir()))
def test_every_committed_cell_has_exactly_the_settings_of_its_row(table):
    cells = cells_of(table)
    assert cells
    for cell, piece in cells:
        assert migrated_settings(cell) == plain(piece.settings), (piece.row, cell.config["column"])
        version, _ = MEASURED_BEFORE.get(table, (piece.version, ""))
        assert cell.config.get("version", 1) == version
        assert same_identity(cell, piece) == (version == piece.version)


def test_a_migrated_cell_is_migrated_to_itself():
    for cell, _ in (each for table in PIECES for each in cells_of(table)[:3]):
        again = dataclasses.replace(cell, config={**cell.config, "settings": migrated_settings(cell), "version": 1})
        assert migrated_settings(again) == migrated_settings(cell)


def test_a_setting_of_a_cell_that_its_row_does_not_have_makes_another_of_it():
    cell, piece = cells_of("omniglot_unsupervised")[0]
    text = json.dumps(cell.config["settings"])
    for before, after in [('"width": 64', '"width": 32'), ('"name": "conv4"', '"name": "conv5"')]:
        assert before in text
        config = {**cell.config, "settings": json.loads(text.replace(before, after))}
        assert not same_identity(dataclasses.replace(cell, config=config), piece)


def test_every_table_of_cells_has_pieces():
    kept = {path.name for path in Path(RESULTS / "cells").iterdir()}
    assert kept <= set(PIECES)
