"""The figures of a run, drawn from its data, models and metrics into RUN/figures."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

import jax
import numpy as np

from experiments.common import Run
from metarep_jax.data import make_augment, sample_episodes
from metarep_jax.model import Model
from metarep_jax.report import figures
from metarep_jax.report.results import Cells, Result
from metarep_jax.train import is_first
from metarep_jax.types import EpisodeSpec

Drawn = ParamSpec("Drawn")
MAP_CLASSES, MAP_IMAGES = 12, 12  # of the embedding map: few enough that colours can be told apart


def first_draws(draw: Callable[Concatenate[Path, Run, Drawn], None]) -> Callable[Concatenate[Run, Drawn], Path]:
    """``draw(path, run, ...)`` as ``NAME_figure(run, ...) -> path``, done by the first of several processes."""

    @functools.wraps(draw)
    def figure(run: Run, *args: Drawn.args, **kwargs: Drawn.kwargs) -> Path:
        path = run.folder / "figures" / f"{draw.__name__.removesuffix('_figure')}.png"
        if is_first():
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(path, run, *args, **kwargs)
        return path

    return figure


@first_draws
def views_figure(path: Path, run: Run, preset: str) -> None:
    """Training images beside augmented views of them."""
    rows = np.asarray(jax.random.choice(run.key(4), run.splits.train.label.shape[0], (8,), replace=False))
    images = run.splits.train.inputs[rows]
    augment = jax.jit(make_augment(preset))
    views = [augment(jax.random.split(run.key(5 + view), 8), images) for view in range(6)]
    figures.save_views(path, np.asarray(images), np.stack(views, axis=1))


@first_draws
def episode_figure(path: Path, run: Run, spec: EpisodeSpec) -> None:
    """One training episode."""
    figures.save_episode(
        path, jax.device_get(jax.jit(sample_episodes, static_argnames="spec")(run.key(6), run.splits.train, spec))
    )


@first_draws
def curves_figure(path: Path, run: Run, stages: dict[str, Path]) -> None:
    """Loss and accuracies of the stages over their steps."""
    figures.save_learning_curves(path, {name: folder / "metrics.jsonl" for name, folder in stages.items()})


@first_draws
def embedding_figure(path: Path, run: Run, model: Model) -> None:
    """Features of a few test classes in two dimensions."""
    pool = run.splits.test
    classes = np.linspace(0, pool.count.shape[0] - 1, min(MAP_CLASSES, pool.count.shape[0])).astype(int)
    rows = np.concatenate([np.asarray(pool.members[c, : min(int(pool.count[c]), MAP_IMAGES)]) for c in classes])
    names = run.splits.class_names["test"]
    figures.save_embedding_map(path, np.asarray(model.embed(pool.inputs[rows])), np.asarray(pool.label[rows]), names)


@first_draws
def bars_figure(path: Path, run: Run, result: Result | Cells) -> None:
    """The final bar chart with its intervals."""
    figures.save_bars(path, result)
