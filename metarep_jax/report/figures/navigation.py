"""Adaptation by reinforcement: the paths of a point before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from metarep_jax.report.figures.canvas import INK, PALETTE, QUIET, drawing, printable
from metarep_jax.report.labels import row_label

BEFORE = "#aab2bd"
PANEL = 1.75  # inches, the side of a panel of paths


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
