"""A map of features in two dimensions, its classes named in place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from metarep_jax.report.figures.canvas import FAINT, MARKERS, PALETTE, QUIET, drawing, shortened

LONGEST = 26  # letters of a class's name
LIFT = 17  # pixels between a class's upper rows and its name
FEW = 8  # rows a class above which t-SNE is worth its time


def save_embedding_map(
    path: Path | str,
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    class_names: Sequence[str],
) -> None:
    """Writes a map of ``features``: t-SNE where scikit-learn is at hand, else the two principal components.

    Args:
      path: of the PNG.
      features: one row an example.
      labels: indices into ``class_names``.
      class_names: names by label; only those that occur are shown.
    """
    place, how = project(np.asarray(features, np.float64))
    present = np.unique(labels)
    with drawing(path, 7.2, 5.4) as figure:
        axes = figure.subplots()
        axes.set_title(f"{len(labels)} examples of {len(present)} classes, by their features ({how})")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color=FAINT)
        colours = [PALETTE[k % len(PALETTE)] for k in range(len(present))]
        for k, c in enumerate(present):
            axes.scatter(
                *place[labels == c].T,
                s=26,
                color=colours[k],
                marker=MARKERS[(k + k // len(PALETTE)) % len(MARKERS)],
                alpha=0.85,
                linewidth=0.5,
                edgecolor="white",
            )
        axes.margins(0.08)
        names = [shortened(class_names[int(c)], LONGEST) for c in present]
        _name_classes(axes, [_above(place[labels == c]) for c in present], names, colours)


def project(features: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "n 2"], str]:
    """Two dimensions for each row, and the name of the method."""
    components = principal_components(features, min(30, *features.shape))
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        TSNE = None
    if TSNE is None or len(features) < 4 * FEW:
        flat = np.zeros((len(features), 2))
        flat[:, : components.shape[1]] = components[:, :2]
        return flat, "two principal components"
    perplexity = min(12.0, len(features) / 8)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(components), "t-SNE"


def principal_components(features: Float[np.ndarray, "n d"], count: int) -> Float[np.ndarray, "n count"]:
    """The first ``count`` principal components of ``features``; each one's largest entry by size is positive."""
    centred = features - features.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    found = (left * size)[:, :count]
    largest = found[np.abs(found).argmax(0), np.arange(found.shape[1])]
    return found * np.where(largest < 0, -1.0, 1.0)


def _above(rows: np.ndarray) -> np.ndarray:
    """Where a class's name goes: over the middle of its upper rows, whatever strays left aside."""
    return np.array([np.median(rows[:, 0]), np.quantile(rows[:, 1], 0.9)])


def _name_classes(axes: Any, places: list[np.ndarray], names: list[str], colours: list[str]) -> None:
    """Names over the classes, pushed apart until none covers another."""
    from matplotlib import patheffects

    halo = [patheffects.withStroke(linewidth=2.6, foreground="white")]
    texts = [
        axes.text(*place, name, ha="center", va="center", fontsize=8, weight="bold", color=colour, path_effects=halo)
        for place, name, colour in zip(places, names, colours)
    ]
    figure = axes.figure
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts]
    middle = np.array([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2] for box in boxes])
    half = np.array([[box.width / 2 + 2, box.height / 2 + 1] for box in boxes])
    frame = axes.get_window_extent()
    low, high = np.array([frame.x0, frame.y0]) + half, np.array([frame.x1, frame.y1]) - half
    start = middle.copy()
    middle[:, 1] += LIFT
    for _ in range(300):
        moved = False
        for i in range(len(texts)):
            for j in range(i):
                apart = middle[i] - middle[j]
                overlap = half[i] + half[j] - np.abs(apart)
                if (overlap > 0).all():
                    push = np.array([0.0, overlap[1] / 2 + 0.5]) * (1 if apart[1] >= 0 else -1)
                    middle[i] += push
                    middle[j] -= push
                    moved = True
        middle = np.clip(middle, low, np.maximum(low, high))
        if not moved:
            break
    back = axes.transData.inverted()
    for text, here, there in zip(texts, start, middle):
        text.set_position(back.transform(there))
        if np.abs(there - here).max() > 2 * LIFT:
            axes.plot(*zip(back.transform(here), back.transform(there)), color=QUIET, linewidth=0.7, zorder=1.5)
