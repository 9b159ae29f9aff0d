"""Figures made of images: augmented views, an episode, and what generative objectives make of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from metarep_jax.report.figures.canvas import QUIET, drawing
from metarep_jax.types import Episode

TILE, GAP = 0.62, 0.09  # inches: the side of an image, and the space between two
BREAK = 0.3  # inches between two groups of columns
MOST_ROWS, MOST_SHOTS, MOST_QUERIES = 10, 8, 10
SAMPLES_A_ROW = 10


def save_views(path: Path | str, images: Shaped[np.ndarray, "n h w c"], views: Shaped[np.ndarray, "n k h w c"]) -> None:
    """Writes a mosaic: a row an image, the image itself at the left and its ``k`` views beside it.

    Args:
      path: of the PNG.
      images: uint8, or floats in [0, 1].
      views: as ``images``.
    """
    rows = [([image], list(row)) for image, row in zip(images, views)]
    _save(path, rows, ("image", "augmented views"), [""] * len(rows))


def save_episode(path: Path | str, episode: Episode) -> None:
    """Writes one task: a row a class, its support examples at the left, its queries at the right.

    Of more than 10 classes, 8 support examples or 10 queries a class, the first are shown, and the note below says so.

    Args:
      path: of the PNG.
      episode: of images [n, h, w, c], uint8 or floats in [0, 1], and labels 0 … way-1.
    """
    support, query = episode.support, episode.query
    classes = np.unique(np.asarray(support.label))
    shot, queries = (_most(part.label) for part in (support, query))
    rows = [(_of_class(support, c)[:MOST_SHOTS], _of_class(query, c)[:MOST_QUERIES]) for c in classes[:MOST_ROWS]]
    names = [f"{k + 1}" for k in range(len(rows))]
    parts = [_counted("class", "classes", len(classes), MOST_ROWS)]
    parts += [_counted("support image", "support images", shot, MOST_SHOTS) + " a class"]
    parts += [_counted("query", "queries", queries, MOST_QUERIES) + " a class"]
    _save(path, rows, ("support", "query"), names, ", ".join(parts))


def save_reconstructions(path: Path | str, rows: Mapping[str, Shaped[np.ndarray, "n h w c"]]) -> None:
    """Writes images above what was made of them: a row a name, a column an image.

    Args:
      path: of the PNG.
      rows: from the top, such as "original" and "reconstruction"; uint8, or floats in [0, 1].
    """
    _save(path, [([*images],) for images in rows.values()], ("",), list(rows))


def save_interpolations(
    path: Path | str,
    first: Shaped[np.ndarray, "n h w c"],
    between: Shaped[np.ndarray, "n k h w c"],
    second: Shaped[np.ndarray, "n h w c"],
) -> None:
    """Writes a row a pair of images: one at the left, the other at the right, what was decoded on the way between."""
    rows = [([one], [*way], [other]) for one, way, other in zip(first, between, second)]
    _save(path, rows, ("image", "decoded, from one to the other", "image"), [""] * len(rows))


def save_samples(path: Path | str, images: Shaped[np.ndarray, "n h w c"]) -> None:
    """Writes images that were drawn from a model, ten a row."""
    rows = [([*images[start : start + SAMPLES_A_ROW]],) for start in range(0, len(images), SAMPLES_A_ROW)]
    _save(path, rows, ("samples",), [""] * len(rows))


def _save(
    path: Any, rows: Sequence[tuple[list, ...]], heads: tuple[str, ...], names: Sequence[str], note: str = ""
) -> None:
    """Rows of groups of images; each group has its head above, each row its name at the left."""
    step = TILE + GAP
    counts = [max((len(row[group]) for row in rows), default=0) for group in range(len(heads))]
    margin = max(0.12, 0.22 + 0.07 * max(map(len, names), default=0) if any(names) else 0.0)
    starts = [margin + sum(counts[:group]) * step + group * (BREAK - GAP) for group in range(len(heads))]
    ends = [start + count * step - GAP + 0.12 for start, count in zip(starts, counts)]
    words = [start + 0.09 * len(head) for start, head in zip(starts, heads)]
    width = max(*ends, *words, margin + 0.068 * len(note))
    top, bottom = 0.36 if any(heads) else 0.12, 0.3 if note else 0.12
    height = top + len(rows) * step - GAP + bottom
    with drawing(path, width, height) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)  # in inches
        axes.set_axis_off()  # one for all tiles: an axes each takes seconds

        def text(x: float, y: float, words: str, **look: Any) -> None:
            figure.text(x / width, 1 - y / height, words, va="center", **look)

        for k, (row, name) in enumerate(zip(rows, names)):
            y = top + k * step
            text(margin - 0.1, y + TILE / 2, name, ha="right", color=QUIET, fontsize=8)
            for start, images in zip(starts, row):
                for j, image in enumerate(images):
                    _show(axes, np.asarray(image), start + j * step, y)
        for x, head in zip(starts, heads):
            text(x, top / 2 + 0.02, head, ha="left", weight="bold", fontsize=9)
        if note:
            text(margin, height - 0.13, note, ha="left", color=QUIET, fontsize=8)


def _show(axes: Any, image: np.ndarray, x: float, y: float) -> None:
    """One image with a thin frame, its upper left corner at ``x``, ``y``."""
    image = image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)
    image = np.clip(image, 0.0, 1.0)
    image = image[..., 0] if image.shape[-1] == 1 else image[..., :3]
    look: Any = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "antialiased"}
    axes.imshow(image, extent=(x, x + TILE, y + TILE, y), aspect="auto", **look)
    axes.plot((x, x + TILE, x + TILE, x, x), (y, y, y + TILE, y + TILE, y), color="#c3c9d1", linewidth=0.6)


def _of_class(examples: Any, c: Any) -> list[np.ndarray]:
    return list(np.asarray(examples.inputs)[np.asarray(examples.label) == c])


def _most(label: Any) -> int:
    return int(np.unique(np.asarray(label), return_counts=True)[1].max(initial=0))


def _counted(one: str, many: str, count: int, most: int) -> str:
    return f"{count} {one if count == 1 else many}" + (f" ({most} shown)" if count > most else "")
