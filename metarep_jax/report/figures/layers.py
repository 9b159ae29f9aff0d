"""How similar each layer is to what it was: a line a comparison, a point a layer."""

from collections.abc import Mapping
from pathlib import Path

from metarep_jax.report.figures.canvas import MARKERS, PALETTE, drawing, printable
from metarep_jax.report.results import Cell


def save_layer_similarity(path: Path | str, comparisons: Mapping[str, Mapping[str, Cell]]) -> None:
    """Writes a chart of CKA against the layers, with 95% intervals where there are any.

    Args:
      path: of the PNG.
      comparisons: ``{comparison: {layer: cell}}``, layers from input to output, ``mean`` in [0, 1].
    """
    layers = list(dict.fromkeys(layer for found in comparisons.values() for layer in found))
    with drawing(path, 1.6 + 0.8 * max(len(layers), 3), 2.8) as figure:
        axes = figure.subplots()
        for k, (comparison, found) in enumerate(comparisons.items()):
            places = [layers.index(layer) for layer in found]
            means = [cell["mean"] for cell in found.values()]
            margins = [cell["ci95"] or 0.0 for cell in found.values()]
            axes.errorbar(
                places, means, yerr=margins, color=PALETTE[k], marker=MARKERS[k], capsize=2, label=printable(comparison)
            )
        axes.set_xticks(range(len(layers)), layers)
        axes.set_xlim(-0.3, len(layers) - 0.7)
        axes.set_ylim(-0.03, 1.05)
        axes.set_ylabel("linear CKA")
        axes.grid(axis="y")
        axes.legend(frameon=False, loc="lower left", fontsize=8)
