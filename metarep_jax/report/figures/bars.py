"""The outcome as bars: a panel a column, a bar a row, with its interval and its number."""

from pathlib import Path
from typing import Any

from metarep_jax.report.figures.canvas import INK, PALETTE, QUIET, drawing, printable
from metarep_jax.report.labels import chance, column_label, columns_of, is_accuracy, number, row_label
from metarep_jax.report.results import Cells, Result

UNTRAINED = "#9aa3ad"
BAR = 0.24  # inches a row
NOT_ROWS = ("ratio_to_best_peer", "share_of_peak")  # of another unit than the rows beside them


def save_bars(path: Path | str, result: Result | Cells) -> None:
    """Writes a bar chart: a panel a column, rows named once at the left, 95% intervals, guessing as a dashed line.

    Args:
      path: of the PNG.
      result: a result, or its cells. The column ``parameters`` is written behind the rows' names.
    """
    cells = result.cells if isinstance(result, Result) else result
    cells = {row: found for row, found in cells.items() if row not in NOT_ROWS}
    columns = [column for column in columns_of(cells) if column != "parameters"]
    rows = list(cells)
    height = 0.75 + BAR * len(rows)
    with drawing(path, 2.6 + 1.9 * max(len(columns), 1), height, wspace=0.04) as figure:
        panels = figure.subplots(1, max(len(columns), 1), sharey=True, squeeze=False)[0]
        for axes, column in zip(panels, columns):
            _panel(axes, column, cells, rows, names_chance=axes is panels[0])
        panels[0].set_yticks(range(len(rows)), [_name(row, cells) for row in rows], color=INK, fontsize=8.5)
        panels[0].set_ylim(len(rows) - 0.05, -0.6)
        if any("parameters" in found for found in cells.values()):
            look = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "color": QUIET}
            panels[0].annotate("parameters", (0, 1), (-4, 6), fontsize=8, **look)


def _panel(axes: Any, column: str, cells: Cells, rows: list[str], *, names_chance: bool) -> None:
    axes.set_title(printable(column_label(column)))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    top = max(cells[row][column]["mean"] for row in rows if column in cells[row])
    limit = 100.0 if is_accuracy(column) else top
    for k, row in enumerate(rows):
        if column not in cells[row]:
            axes.text(0.1 * limit, k, "–", va="center", color=QUIET, fontsize=8)
            continue
        mean, margin = cells[row][column]["mean"], cells[row][column]["ci95"] or 0.0
        axes.barh(k, mean, height=0.66, color=colour_of(row, rows))
        if margin:
            axes.errorbar(mean, k, xerr=margin, color=INK, linewidth=1.0, capsize=2, capthick=1.0)
        axes.text(mean + margin + 0.025 * limit, k, _value(mean, column), va="center", fontsize=8, color=INK)
    guess = chance(column)
    if guess is not None:
        axes.axvline(guess, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        if names_chance:
            axes.text(guess, len(rows) - 0.32, " chance", va="center", fontsize=7.5, color=QUIET)
    axes.set_xlim(0, 1.22 * limit)
    if is_accuracy(column):
        axes.set_xticks([0, 50, 100], ["0", "50", "100%"])


def colour_of(row: str, rows: list[str]) -> str:
    """One colour a family of rows: the words before the first underscore or bracket."""
    family = _family(row)
    if family == "untrained":
        return UNTRAINED
    families = [other for other in dict.fromkeys(map(_family, rows)) if other != "untrained"]
    return PALETTE[families.index(family) % len(PALETTE)]


def _family(row: str) -> str:
    return row.partition(" (")[0].partition("_")[0]


def _name(row: str, cells: Cells) -> str:
    size = cells[row].get("parameters")
    words = printable(row_label(row))
    return f"{words}  ·  {_count(size['mean']):>5}" if size else words


def _value(mean: float | int, column: str) -> str:
    return f"{mean:.1f}" if is_accuracy(column) else number(mean, column)


def _count(value: float | int) -> str:
    """``112345`` → "112k"."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.{1 if value < 10 * size else 0}f}{unit}"
    return f"{value:.0f}"
