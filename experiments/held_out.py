"""Stage 1's objective judged by itself on the test rows, beside its untrained self; kept in ``held_out.json``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from experiments.common import Run
from metarep_jax.encoders.layers import as_image_float
from metarep_jax.evaluate import Interval, held_out, interval, unigram
from metarep_jax.files import atomic_write
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.pretrain.vae import bound_of_weights, log_weights, vae_of
from metarep_jax.types import Objective

FILE = "held_out.json"
# Of the importance-weighted bound; Burda et al. 2015 take 5,000 samples.
BOUND_ROWS, BOUND_BATCH, SAMPLES = 2000, 100, 50


def judge_held_out(
    run: Run, folder: Path, config: ObjectiveConfig, encoder: Any, objective: Objective, fitted: Any
) -> None:
    """Writes what ``held_out_cells`` reads. Norms use each batch's statistics, but for ``elbo`` and the bound of a VAE.

    Args:
      run: with the test rows.
      folder: of the stage.
      config: of the objective.
      encoder, objective: made without ``axis_name``.
      fitted: anything with ``params`` and ``state``.
    """
    pool, train = run.splits.test, run.splits.train
    start: Any = jax.jit(objective.init)(run.key(1), {"inputs": train.inputs[:2], "label": train.label[:2]})
    rows = {
        "untrained": held_out(objective, start[0], start[1], pool, key=run.key(11)),
        "pretrained": held_out(objective, fitted.params, fitted.state, pool, key=run.key(11)),
    }
    if config.name == "masked_lm":
        rows["unigram"] = unigram(train.inputs, pool.inputs, run.vocabulary)
    if config.name == "vae":
        bounds = vae_bounds(run, config, encoder)
        rows["untrained"] |= bounds(*start)
        rows["pretrained"] |= bounds(fitted.params, fitted.state)
    cells = {row: {column: value.cell() for column, value in found.items()} for row, found in rows.items()}
    atomic_write(folder / FILE, json.dumps(cells, indent=2) + "\n")


def vae_bounds(run: Run, config: ObjectiveConfig, encoder: Any) -> Callable[[Any, Any], dict[str, Interval]]:
    """``(params, state) -> "elbo" and "importance_weighted_bound"``: mean bounds on log p(x) of test images of all
    classes, in nats; of pixels drawn anew where training drew them. Norms use running averages: a bound belongs to one
    image."""
    model = vae_of(config, encoder)
    images = run.splits.test.inputs
    count = min(BOUND_ROWS, len(images))
    images = images[np.arange(count) * len(images) // count]
    size = min(BOUND_BATCH, len(images))
    parts = images[: len(images) // size * size].reshape(-1, size, *images.shape[1:])

    @jax.jit
    def judge(params: Any, state: Any, images: Array, key: Array) -> tuple[Array, Array]:
        pixel_key, key = jax.random.split(key)
        x = as_image_float(images)
        x = jax.random.bernoulli(pixel_key, x).astype(x.dtype) if config.get("binarise") else x
        weights = log_weights(model, params, state, x, key, SAMPLES)
        return weights.mean(0), bound_of_weights(weights)

    def bounds(params: Any, state: Any) -> dict[str, Interval]:
        found = [judge(params, state, part, run.key(1000 + i)) for i, part in enumerate(parts)]
        elbo, bound = (interval(np.concatenate(each)) for each in zip(*found, strict=True))
        return {"elbo": elbo, "importance_weighted_bound": bound}

    return bounds


def held_out_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """The cells of a stage that was judged: rows "untrained", "pretrained" and any baseline; {} where it was not."""
    file = folder / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
