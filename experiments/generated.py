"""What a generative objective of stage 1 makes of test images, drawn while its decoder is at hand: in STAGE/figures."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.common import Run
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.pretrain.generation import RECONSTRUCTIONS, interpolate, reconstructions, sample_prior
from metarep_jax.pretrain.vae import vae_of
from metarep_jax.report import figures

IMAGES, PAIRS, STEPS, SAMPLES = 12, 6, 8, 60
NAMES = ("reconstructions", "interpolations", "samples")


def draw_generated(run: Run, folder: Path, config: ObjectiveConfig, encoder: Any, fitted: Any) -> None:
    """Draws what ``generated_figures`` lists; nothing for objectives without a decoder of images.

    Args:
      run: with the test rows.
      folder: of the stage.
      config: of the objective.
      encoder: made without ``axis_name``.
      fitted: anything with ``params`` and ``state``.
    """
    if config.name not in RECONSTRUCTIONS or not run.has_images:
        return
    place = folder / "figures"
    place.mkdir(parents=True, exist_ok=True)
    params, state, images = fitted.params, fitted.state, some_images(run)
    keys = jax.random.split(run.key(12), len(images))
    rows = jax.jit(partial(reconstructions, config, encoder))(params, state, images, keys)
    figures.save_reconstructions(place / "reconstructions.png", {name: np.asarray(row) for name, row in rows.items()})
    if config.name != "vae":
        return
    model = vae_of(config, encoder)
    if pairs := min(PAIRS, len(images) // 2):
        first, second = images[:pairs], images[pairs : 2 * pairs]
        between = jax.jit(partial(interpolate, model, steps=STEPS))(params, state, first, second)
        figures.save_interpolations(place / "interpolations.png", *map(np.asarray, (first, between, second)))
    sample = partial(sample_prior, model, count=SAMPLES, shape=images.shape[1:])
    samples = jax.jit(sample)(params, state, run.key(13))
    figures.save_samples(place / "samples.png", np.asarray(samples))


def some_images(run: Run) -> Array:
    """One test image of each of several classes, spread over the classes in their order."""
    pool = run.splits.test
    classes = np.linspace(0, pool.count.shape[0] - 1, min(IMAGES, pool.count.shape[0])).astype(int)
    return jnp.asarray(pool.inputs)[pool.members[classes, 0]]


def generated_figures(folder: Path) -> list[Path]:
    """The figures that a stage drew, if any."""
    paths = [folder / "figures" / f"{name}.png" for name in NAMES]
    return [path for path in paths if path.is_file()]
