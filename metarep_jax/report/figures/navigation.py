"""Adaptation by reinforcement: returns update by update, and the paths of a point before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from metarep_jax.report.figures.canvas import INK, PALETTE, QUIET, drawing, printable, spread
from metarep_jax.report.labels import columns_of, row_label
from metarep_jax.report.published import published_column
from metarep_jax.report.results import Cells

BEFORE = "#aab2bd"
PANEL = 1.75  # inches, the side of a panel of paths


def save_returns(path: Path | str, cells: Cells) -> None:
    """Writes a line a row over the columns ``0 updates`` …, with 95% intervals; published numbers as hollow marks.

    The axis covers the means; wider intervals run out of it.

    Args:
      path: of the PNG.
      cells: of a result.
    """
    columns = columns_of(cells)
    with drawing(path, 5.6, 3.2) as figure:
        axes = figure.subplots()
        axes.set_title("Return on new goals, mean of an episode")
        axes.set_xlabel("updates by policy gradient")
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


def save_paths(
    path: Path | str,
    rows: Mapping[str, Sequence[Mapping[str, Sequence[Float[np.ndarray, "_ 2"]]]]],
    goals: Float[np.ndarray, "k 2"],
) -> None:
    """Writes a panel a row and goal, with the paths of each stage of adaptation in a colour of its own.

    Args:
      path: of the PNG.
      rows: ``{method: [for each goal, {stage: positions [steps, 2] of some episodes}]}``; the first stage is grey.
      goals: of the columns.
    """
    stages = list(next(iter(rows.values()))[0])
    colours = dict(zip(stages, (BEFORE, *PALETTE)))
    with drawing(path, 0.5 + PANEL * len(goals), 0.55 + PANEL * len(rows)) as figure:
        panels = figure.subplots(len(rows), len(goals), sharex=True, sharey=True, squeeze=False)
        for (name, by_goal), line in zip(rows.items(), panels):
            line[0].set_ylabel(printable(row_label(name)), color=INK)
            for axes, by_stage, goal in zip(line, by_goal, goals):
                for stage, paths in by_stage.items():
                    for positions in paths:
                        axes.plot(*positions.T, color=colours[stage], linewidth=0.9, alpha=0.75)
                axes.plot(0, 0, "o", color=QUIET, markersize=3)
                axes.plot(*goal, "*", color=INK, markersize=9, zorder=3)
                axes.set(
                    xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), aspect="equal", xticks=[-0.5, 0, 0.5], yticks=[-0.5, 0, 0.5]
                )
        handles = [
            panels[0, 0].plot([], [], color=colour, linewidth=2, label=stage)[0] for stage, colour in colours.items()
        ]
        handles.append(panels[0, 0].plot([], [], "*", color=INK, markersize=9, label="goal")[0])
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)
