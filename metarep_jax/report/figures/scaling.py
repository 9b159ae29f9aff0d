"""How a cost grows: log-log lines, a panel a cost."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from metarep_jax.report.figures.canvas import MARKERS, PALETTE, drawing, printable


def save_scaling(path: Path | str, panels: Mapping[str, Mapping[str, tuple[list[float], list[float]]]]) -> None:
    """Writes a panel for each cost, such as ``ms a step``, with a line a setting, whose slope stands in the legend.

    Args:
      path: of the PNG.
      panels: ``{cost: {setting: (its values, the costs)}}``, all positive; a line of one point has no slope.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with drawing(path, 4.6 * len(panels), 3.3) as figure:
        for axes, (cost, lines) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items()):
            axes.set_title(printable(cost))
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xlabel("value of the setting")
            axes.grid(axis="y")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
            for name, (values, costs) in lines.items():
                k = names.index(name)
                slope = f", slope {log_slope(values, costs):.2f}" if len(values) > 1 else ""
                look = {"color": PALETTE[k % len(PALETTE)], "marker": MARKERS[k % len(MARKERS)], "markersize": 4}
                axes.plot(values, costs, linewidth=1.8, label=printable(f"{name}{slope}"), **look)
            axes.legend(frameon=False, fontsize=8)


def log_slope(values: list[float], costs: list[float]) -> float:
    """The exponent k of the power law cost ∝ valueᵏ nearest to the points, by least squares of logarithms.

    Raises:
      ValueError: for less than two points, or numbers that are not positive.
    """
    if len(values) < 2 or min(*values, *costs) <= 0:
        raise ValueError(f"a slope takes at least two points of positive numbers, got {values} and {costs}")
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])
