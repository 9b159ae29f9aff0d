"""The figures of a run, drawn from its data, models and metrics into RUN/figures."""

from pathlib import Path

import jax
import numpy as np

from experiments.common import Run
from metarep_jax.data import make_augment, sample_episodes
from metarep_jax.model import Model
from metarep_jax.report import figures
from metarep_jax.report.results import Cells, Result
from metarep_jax.types import EpisodeSpec

MAP_CLASSES, MAP_IMAGES = 12, 12  # of the embedding map: few enough that colours can be told apart


def views_figure(run: Run, preset: str) -> Path:
    """Training images beside augmented views of them."""
    rows = np.asarray(jax.random.choice(run.key(4), run.splits.train.label.shape[0], (8,), replace=False))
    images = run.splits.train.inputs[rows]
    augment = jax.jit(make_augment(preset))
    views = [augment(jax.random.split(run.key(5 + view), 8), images) for view in range(6)]
    path = _folder(run) / "views.png"
    figures.save_views(path, np.asarray(images), np.stack(views, axis=1))
    return path


def episode_figure(run: Run, spec: EpisodeSpec) -> Path:
    """One training episode."""
    path = _folder(run) / "episode.png"
    figures.save_episode(
        path, jax.device_get(jax.jit(sample_episodes, static_argnames="spec")(run.key(6), run.splits.train, spec))
    )
    return path


def curves_figure(run: Run, stages: dict[str, Path]) -> Path:
    """Loss and accuracies of the stages over their steps."""
    path = _folder(run) / "curves.png"
    figures.save_learning_curves(path, {name: folder / "metrics.jsonl" for name, folder in stages.items()})
    return path


def embedding_figure(run: Run, model: Model) -> Path:
    """Features of a few test classes in two dimensions."""
    pool = run.splits.test
    classes = np.linspace(0, pool.count.shape[0] - 1, min(MAP_CLASSES, pool.count.shape[0])).astype(int)
    rows = np.concatenate([np.asarray(pool.members[c, : min(int(pool.count[c]), MAP_IMAGES)]) for c in classes])
    path = _folder(run) / "embedding.png"
    names = run.splits.class_names["test"]
    figures.save_embedding_map(path, np.asarray(model.embed(pool.inputs[rows])), np.asarray(pool.label[rows]), names)
    return path


def bars_figure(run: Run, result: Result | Cells) -> Path:
    """The final bar chart with its intervals."""
    path = _folder(run) / "bars.png"
    figures.save_bars(path, result)
    return path


def _folder(run: Run) -> Path:
    folder = run.folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
