"""Regression on a task: the function before and after adapting, and how the error falls with the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from metarep_jax.report.figures.canvas import INK, PALETTE, QUIET, drawing, printable
from metarep_jax.report.labels import row_label

BEFORE = "#9aa3ad"


class Fit(NamedTuple):
    """One panel: a model's predictions of one task, by the number of steps taken before."""

    title: str
    predictions: Mapping[int, Float[np.ndarray, " x"]]


def save_regression(
    path: Path | str,
    x: Float[np.ndarray, " x"],
    truth: Float[np.ndarray, " x"],
    points: Float[np.ndarray, "n 2"],
    fits: Sequence[Fit],
    errors: Mapping[str, Mapping[int, float]],
) -> None:
    """Writes a panel a model, with the true function and the points that it adapted on, and one of errors by steps.

    Args:
      path: of the PNG.
      x, truth: where the functions are drawn, and the true one there.
      points: what the models adapted on.
      fits: of the models.
      errors: mean error by row and number of steps; a row with a single number of steps is a level line.
    """
    with drawing(path, 2.9 * (len(fits) + 1), 2.9) as figure:
        *panels, last = figure.subplots(1, len(fits) + 1)
        low, high = truth.min() - 1.5, truth.max() + 1.5
        for axes, fit in zip(panels, fits, strict=True):
            axes.set_title(printable(fit.title))
            axes.plot(x, truth, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="true function")
            for steps, colour in zip(fit.predictions, _colours(fit.predictions)):
                axes.plot(x, fit.predictions[steps], color=colour, linewidth=1.6, label=_named(steps))
            axes.plot(*points.T, "o", color=INK, markersize=5, label="given")
            axes.set(ylim=(low, high), xlabel="x")
        found = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels())}
        figure.legend(found.values(), found, loc="outside upper left", ncols=len(found), frameon=False, fontsize=8)
        _errors(last, errors)


def _errors(axes: Any, errors: Mapping[str, Mapping[int, float]]) -> None:
    axes.set_title("Mean squared error by steps")
    axes.set(yscale="log", xlabel="steps")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y")
    most = max(max(found) for found in errors.values())
    for (row, found), colour in zip(errors.items(), PALETTE):
        steps = list(found) if len(found) > 1 else [0, most]
        values = [found[step] if step in found else next(iter(found.values())) for step in steps]
        marker, style = ("o", "-") if len(found) > 1 else ("", (0, (2, 2)))
        label = printable(row_label(row))
        axes.plot(steps, values, color=colour, marker=marker, markersize=3, linestyle=style, label=label)
    axes.legend(frameon=False, fontsize=7, labelcolor=QUIET, loc="center right", bbox_to_anchor=(1, 0.32))


def _named(steps: int) -> str:
    return "before" if steps == 0 else f"after {steps} step{'s' if steps > 1 else ''}"


def _colours(predictions: Mapping[int, Any]) -> list[str]:
    return [BEFORE if steps == 0 else PALETTE[i % len(PALETTE)] for i, steps in enumerate(predictions)]
