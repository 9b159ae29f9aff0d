"""Intervals as the cells of a result file, and cells of several models and rows together."""

from collections.abc import Mapping, Sequence

from metarep_jax.encoders import count_parameters
from metarep_jax.evaluate import Interval, interval_over_seeds
from metarep_jax.model import Model
from metarep_jax.report.results import Cell, Cells


def mean_over_models(each: Sequence[Cells], *, one_test: bool = True) -> Cells:
    """The means over several models, such as one a seed, of the cells that all of them have.

    ``one_test``: whether all were judged on the same episodes.
    """
    first, *others = each
    if not others:
        return first

    def mean(row: str, column: str) -> Cell:
        mean, ci95, n = interval_over_seeds([Interval(**cells[row][column]) for cells in each], one_test=one_test)
        return {"mean": mean, "ci95": ci95, "n": n}

    shared = {
        row: [column for column in columns if all(column in other.get(row, {}) for other in others)]
        for row, columns in first.items()
    }
    return {row: {column: mean(row, column) for column in columns} for row, columns in shared.items() if columns}


def joined(first: Cells, second: Cells) -> Cells:
    """The rows of both; of a row that both have, the columns of both."""
    return {row: {**first.get(row, {}), **second.get(row, {})} for row in [*first, *second]}


def as_cells(columns: Mapping[str, Interval]) -> dict[str, Cell]:
    """A row of a result file: each column's interval as a cell."""
    return {column: Cell(**value.cell()) for column, value in columns.items()}


def parameter_cells(models: dict[str, Model]) -> Cells:
    """The ``parameters`` column: scalars of the encoder and, where there is one, the head."""
    return {
        row: {"parameters": {"mean": count_parameters(model.params), "ci95": None, "n": 1}}
        for row, model in models.items()
    }
