"""A number that changes with another: a line a row of a result, over its columns."""

from pathlib import Path
from typing import Any

import numpy as np

from metarep_jax.report.figures.canvas import PALETTE, drawing, printable, spread
from metarep_jax.report.labels import columns_of, row_label
from metarep_jax.report.published import published_column
from metarep_jax.report.results import Cells

ACCURACIES = (0, 20, 40, 60, 80, 90, 95, 97, 98, 99, 99.5, 99.9)  # marks of an axis by errors


def save_lines(path: Path | str, cells: Cells, *, title: str, xlabel: str, by_errors: bool = False) -> None:
    """Writes a line a row over columns such as ``0 updates``, ``1 update``, which stand side by side by their numbers.

    95% intervals are bars, published numbers hollow marks. The axis covers the means; wider intervals run out of it.

    Args:
      path: of the PNG.
      cells: of a result; rows that lack a column are left out.
      title, xlabel: words over and under the axes.
      by_errors: accuracies in %, on an axis that each halving of the errors takes as far upwards.
    """
    columns = columns_of(cells)
    cells = {row: found for row, found in cells.items() if all(column in found for column in columns)}
    with drawing(path, 5.6, 3.2) as figure:
        axes = figure.subplots()
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y")
        axes.set_xticks(range(len(columns)), [column.partition(" ")[0] for column in columns])
        ends = []
        for k, (row, found) in enumerate(cells.items()):
            means = [found[column]["mean"] for column in columns]
            margins = [found[column]["ci95"] or 0.0 for column in columns]
            look = {"color": PALETTE[k], "linewidth": 1.8, "marker": "o", "markersize": 4}
            places = np.arange(len(columns)) + 0.05 * (k - (len(cells) - 1) / 2)  # intervals side by side
            axes.errorbar(places, means, yerr=margins, capsize=2, elinewidth=0.9, **look)
            ends.append((row_label(row), means[-1], PALETTE[k]))
            there = [i for i, column in enumerate(columns) if published_column(column) in found]
            if there:
                values = [found[published_column(columns[i])]["mean"] for i in there]
                axes.plot(there, values, "D", mfc="white", mec=PALETTE[k], markersize=5, zorder=3)
                look = {"textcoords": "offset points", "fontsize": 7.5, "color": PALETTE[k]}
                axes.annotate("published", (there[-1], values[-1]), (-6, 6), ha="right", **look)
        means = [found[column]["mean"] for found in cells.values() for column in found]
        margin = 0.08 * (max(means) - min(means) or 1.0)
        if by_errors:
            axes.set_yscale("function", functions=(halvings, lambda y: 100 - 0.5**y))
            ticks = [tick for tick in ACCURACIES if min(means) - 5 < tick < 100]
            axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_ylim(min(means) - 5, 100 - 0.8 * (100 - max(means)))
        else:
            axes.set_ylim(min(means) - margin, max(means) + 2 * margin)
        _name_ends(axes, ends, len(columns) - 1)


def halvings(accuracy: Any) -> Any:
    """How often the errors of an accuracy in %, at least 0.01, are half of 1%; negative for more than 1%."""
    return -np.log2(np.maximum(100 - accuracy, 0.01))


def _name_ends(axes: Any, ends: list[tuple[str, float, str]], last: int) -> None:
    scale = axes.transData + axes.transAxes.inverted()
    heights = spread([float(scale.transform((last, value))[1]) for _, value, _ in ends], 0.08, 0.03, 0.97)
    for (name, value, colour), height in zip(ends, heights):
        axes.annotate(
            printable(name), (last, value), (1.03, height), textcoords="axes fraction", color=colour, fontsize=8,
            va="center",
        )  # fmt: skip
