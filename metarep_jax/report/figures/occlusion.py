"""What the answer rests on: images with the loss of log-probability laid over them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from metarep_jax.report.figures.canvas import QUIET, drawing, shortened


def save_occlusion(
    path: Path | str,
    images: Shaped[np.ndarray, "n h w c"],
    maps: Float[np.ndarray, "n h w"],
    titles: Sequence[str] = (),
) -> None:
    """Writes two rows: the images, and each again under its map: red where covering hurts the answer.

    Args:
      path: of the PNG.
      images: uint8, or floats in [0, 1].
      maps: in nats, one scale for all.
      titles: above each image.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    grey = np.asarray(images, np.float64) / (255 if np.asarray(images).dtype == np.uint8 else 1)
    grey = np.clip(grey.mean(-1), 0, 1)
    reach = float(np.abs(maps).max()) or 1.0
    with drawing(path, 0.6 + 0.95 * len(images), 2.35) as figure:
        panels = figure.subplots(2, len(images), squeeze=False)
        for k, (image, found) in enumerate(zip(grey, maps)):
            for row in (0, 1):
                panels[row][k].imshow(image, cmap="gray", vmin=0, vmax=1)
                panels[row][k].set(xticks=[], yticks=[])
            panels[1][k].imshow(found, cmap="RdBu_r", vmin=-reach, vmax=reach, alpha=0.65)
            if k < len(titles):
                panels[0][k].set_title(shortened(titles[k], 14), fontsize=7.5, weight="normal", color=QUIET)
        scale = ScalarMappable(Normalize(-reach, reach), "RdBu_r")
        bar = figure.colorbar(scale, ax=list(panels[1]), fraction=0.02, pad=0.01)
        bar.set_label("nats lost", fontsize=7.5)
        bar.ax.tick_params(labelsize=7)
