"""What each row has over one of them, in points, with intervals: what a change gives."""

from pathlib import Path

from metarep_jax.report.figures.bars import BAR
from metarep_jax.report.figures.canvas import INK, PALETTE, drawing, printable
from metarep_jax.report.labels import column_label, columns_of, row_label
from metarep_jax.report.results import Cells, difference

MORE, LESS = PALETTE[0], PALETTE[1]


def save_gains(path: Path | str, cells: Cells, *, base: str) -> None:
    """Writes a panel a column: a bar from 0 to each row's accuracy minus that of ``base``.

    Args:
      path: of the PNG.
      cells: accuracies in %.
      base: the row that the others change; it has no bar, its accuracy stands in the title.

    Raises:
      ValueError: when there is no such row.
    """
    if base not in cells:
        raise ValueError(f"there is no row {base!r} to compare with; there are: {', '.join(cells)}")
    columns, rows = columns_of({base: cells[base]}), [row for row in cells if row != base]
    with drawing(path, 3.0 + 2.4 * len(columns), 0.75 + BAR * len(rows), wspace=0.04) as figure:
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, column in zip(panels, columns):
            theirs = cells[base][column]
            axes.set_title(printable(f"{column_label(column)}: {row_label(base)} {theirs['mean']:.1f}%"))
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x")
            axes.axvline(0, color=INK, linewidth=0.9)
            found = {
                place: difference(cells[row][column], theirs) for place, row in enumerate(rows) if column in cells[row]
            }
            reach = max([abs(value) + margin for value, margin in found.values()], default=1.0)
            for place, (value, margin) in found.items():
                axes.barh(place, value, height=0.66, color=MORE if value >= 0 else LESS)
                axes.errorbar(value, place, xerr=margin, color=INK, linewidth=1.0, capsize=2, capthick=1.0)
                side = 1 if value >= 0 else -1
                look = {"va": "center", "ha": "left" if side > 0 else "right", "fontsize": 8, "color": INK}
                axes.text(value + side * (margin + 0.03 * reach), place, f"{value:+.1f}", **look)
            lowest = min([value - margin for value, margin in found.values()], default=0.0)
            axes.set_xlim(min(lowest, 0) - 0.34 * reach, 1.3 * reach)
            axes.set_xlabel("points")
        panels[0].set_yticks(range(len(rows)), [printable(row_label(row)) for row in rows], color=INK, fontsize=8.5)
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
