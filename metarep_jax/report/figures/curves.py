"""Learning curves out of metrics files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarep_jax.report.figures.canvas import PALETTE, drawing, printable, spread
from metarep_jax.report.labels import ROWS

SMOOTH = 30  # a running mean over a thirtieth of a curve: noise of single dispatches would hide the trend


def save_learning_curves(path: Path | str, runs: Mapping[str, Path]) -> None:
    """Writes the training loss and, where there are any, validation accuracies of each stage over its steps.

    Args:
      path: of the PNG.
      runs: ``{name: metrics.jsonl}``, lines of JSON with ``step`` and metrics by name. Files that do not exist, and a
        last line cut short, are left out.
    """
    lines = {name: _read(Path(file)) for name, file in runs.items()}
    losses = {name: _series(found, lambda metric: metric == "loss") for name, found in lines.items()}
    accuracies = {name: _series(found, _is_validation) for name, found in lines.items()}
    title, shown = "Accuracy on validation classes, %", accuracies
    if not any(map(len, accuracies.values())):
        title, shown = (
            "Accuracy in training, %",
            {name: _series(found, _is_accuracy, 100.0) for name, found in lines.items()},
        )
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(runs)}
    panels = [("Training loss", losses, True)] + ([(title, shown, False)] if any(map(len, shown.values())) else [])
    with drawing(path, 5.4 * len(panels), 3.3) as figure:
        for axes, (title, curves, logarithmic) in zip(np.ravel(figure.subplots(1, len(panels))), panels):
            _panel(axes, title, {name: curve for name, curve in curves.items() if len(curve)}, colours, logarithmic)


def _panel(axes: Any, title: str, curves: dict[str, np.ndarray], colours: dict[str, str], logarithmic: bool) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(axis="y")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ends = {}
    for name, curve in curves.items():
        step, value = curve.T
        smooth = _smoothed(value) if logarithmic else value
        if logarithmic:
            axes.plot(step, value, color=colours[name], alpha=0.22, linewidth=0.8)
        marker = "o" if len(step) < 30 and not logarithmic else ""
        axes.plot(step, smooth, color=colours[name], linewidth=1.8, marker=marker, markersize=3.5)
        ends[name] = (step[-1], smooth[-1])
    if not curves:
        return
    if logarithmic and min(value for _, value in ends.values()) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.margins(x=0.01)
    _label_ends(axes, ends, colours)


def _label_ends(axes: Any, ends: dict[str, tuple[float, float]], colours: dict[str, str]) -> None:
    """Names at the right of the panel, each at the height of its curve's end as far as they do not collide."""
    axes.autoscale_view()
    scale = axes.transData + axes.transAxes.inverted()
    right = max(step for step, _ in ends.values())
    wanted = [float(scale.transform((right, value))[1]) for _, value in ends.values()]
    for (name, (step, value)), height in zip(ends.items(), spread(wanted, 0.075, 0.03, 0.97)):
        words = printable(ROWS.get(name, name.replace("_", " ")))
        axes.annotate(
            words,
            xy=(step, value),
            xytext=(1.04, height),
            textcoords="axes fraction",
            color=colours[name],
            fontsize=8,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colours[name],
                "alpha": 0.35,
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def _read(file: Path) -> list[dict[str, Any]]:
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def _series(lines: list[dict[str, Any]], wanted: Any, scale: float = 1.0) -> np.ndarray:
    """[points, 2] of step and the first wanted metric of a line."""
    found = [
        (line["step"], scale * value)
        for line in lines
        for value in [next((v for name, v in line.items() if wanted(name) and isinstance(v, int | float)), None)]
        if value is not None and np.isfinite(value)
    ]
    return np.asarray(found, np.float64).reshape(-1, 2)


def _is_validation(metric: str) -> bool:
    return metric.startswith("val_")


def _is_accuracy(metric: str) -> bool:
    return metric.endswith("accuracy") and not metric.startswith("val_")


def _smoothed(value: np.ndarray) -> np.ndarray:
    """A centred running mean; at the ends, of what its window holds."""
    half = len(value) // (2 * SMOOTH)
    total = np.concatenate([[0.0], np.cumsum(value)])
    at = np.arange(len(value))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(value))
    return (total[last] - total[first]) / (last - first)
