"""A number that changes with another: a line a row of a result, over its columns."""

from pathlib import Path
from typing import Any

import numpy as np

from metarep_jax.report.figures.canvas import PALETTE, drawing, printable, spread
from metarep_jax.report.labels import columns_of, row_label
from metarep_jax.report.published import published_column
from metarep_jax.report.results import Cells


def save_lines(path: Path | str, cells: Cells, *, title: str, xlabel: str) -> None:
    """Writes a line a row over columns such as ``0 updates``, ``1 update``, which stand side by side by their numbers.

    95% intervals are bars, published numbers hollow marks. The axis covers the means; wider intervals run out of it.

    Args:
      path: of the PNG.
      cells: of a result; rows that lack a column are left out.
      title, xlabel: words over and under the axes.
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
        axes.set_ylim(min(means) - margin, max(means) + 2 * margin)
        _name_ends(axes, ends, len(columns) - 1)


def _name_ends(axes: Any, ends: list[tuple[str, float, str]], last: int) -> None:
    scale = axes.transData + axes.transAxes.inverted()
    heights = spread([float(scale.transform((last, value))[1]) for _, value, _ in ends], 0.08, 0.03, 0.97)
    for (name, value, colour), height in zip(ends, heights):
        axes.annotate(
            printable(name), (last, value), (1.03, height), textcoords="axes fraction", color=colour, fontsize=8,
            va="center",
        )  # fmt: skip
