"""The figures of a run, drawn from its data, models and metrics into RUN/figures."""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import Run
from metarep_jax.data import make_augment, sample_episodes
from metarep_jax.encoders import input_dtype, make_encoder
from metarep_jax.encoders.layers import as_image_float
from metarep_jax.evaluate import adaptation_similarity, interval, occlusion_maps, variables_similarity
from metarep_jax.evaluate.similarity import HEAD
from metarep_jax.model import Model
from metarep_jax.report import figures
from metarep_jax.report.results import Cell, Cells, Result
from metarep_jax.train import on_main_process
from metarep_jax.types import EpisodeSpec, episode_of

Drawn = ParamSpec("Drawn")
MAP_CLASSES, MAP_IMAGES = 12, 12  # of the embedding map: few enough that colours can be told apart
LAYER_TASKS, LAYER_IMAGES = 20, 256  # behind the figure of the layers


def first_draws(draw: Callable[Concatenate[Path, Run, Drawn], None]) -> Callable[Concatenate[Run, Drawn], Path]:
    """``draw(path, run, ...)`` as ``NAME_figure(run, ...) -> path``, done by the first of several processes."""

    @functools.wraps(draw)
    def figure(run: Run, *args: Drawn.args, **kwargs: Drawn.kwargs) -> Path:
        path = run.folder / "figures" / f"{draw.__name__.removesuffix('_figure')}.png"
        if on_main_process():
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
def layers_figure(path: Path, run: Run, model: Model, before: Any = None) -> None:
    """CKA of the layers before and after adaptation to test tasks, and before and after meta-training.

    Args:
      path, run: see ``first_draws``.
      model: meta-learned.
      before: the encoder's variables that meta-training started from; None: those of its random initialisation.
    """
    pool, encoder = run.splits.test, make_encoder(model.spec.encoder)
    comparisons: dict[str, dict[str, Cell]] = {}
    spec = EpisodeSpec(min(model.spec.way, pool.count.shape[0]), 1, min(15, int(pool.count.min()) - 1))
    learner = model.learner(spec.way)

    def one(key: Any) -> dict[str, Any]:
        episode = sample_episodes(key, pool, spec)
        return adaptation_similarity(learner, encoder, model.params, model.learner_state, episode, key)

    if _gradient_based(model):
        found = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(run.key(7), LAYER_TASKS))
        comparisons["before and after adaptation"] = {
            name: Cell(**interval(np.asarray(found[name])).cell()) for name in _in_order(found)
        }
    images = min(LAYER_IMAGES, pool.label.shape[0])
    rows = np.asarray(jax.random.choice(run.key(8), pool.label.shape[0], (images,), replace=False))
    inputs = jnp.asarray(pool.inputs[rows])
    before = jax.jit(encoder.init)(run.key(1), inputs[:1]) if before is None else before
    moved = jax.jit(partial(variables_similarity, encoder))(before, model.encoder_params, inputs)
    comparisons["before and after meta-training"] = {
        name: {"mean": float(moved[name]), "ci95": None, "n": 1} for name in _in_order(moved)
    }
    figures.save_layer_similarity(path, comparisons)


@first_draws
def occlusion_figure(path: Path, run: Run, model: Model) -> None:
    """What the adapted model looks at in one query of each class of a test task."""
    pool = run.splits.test
    spec = EpisodeSpec(min(model.spec.way, pool.count.shape[0], 8), 1, 1)
    spec = dataclasses.replace(spec, way=model.spec.way) if model.fixed_way else spec
    learner, ctx = model.learner(spec.way), model.learner(spec.way).test_context

    def draw(key: Any) -> tuple[Any, Any]:
        support, query = sample_episodes(key, pool, spec)
        task = learner.adapt(model.params, model.learner_state, support, key, ctx)
        images = as_image_float(query.inputs)

        def answer(images: Any) -> Any:
            return learner.predict(model.params, model.learner_state, task, images, ctx)["logits"]

        return images, occlusion_maps(answer, images, query.label, size=max(images.shape[1] // 4, 1))

    images, maps = jax.jit(draw)(run.key(9))
    figures.save_occlusion(path, np.asarray(images), np.asarray(maps))


@first_draws
def bars_figure(path: Path, run: Run, result: Result | Cells) -> None:
    """The final bar chart with its intervals."""
    figures.save_bars(path, result)


def _gradient_based(model: Model) -> bool:
    """Whether the learner's task is fast weights, which can be compared layer by layer."""
    learner, shape = model.learner(model.spec.way), (1, *model.spec.shape)
    episode = episode_of(EpisodeSpec(model.spec.way, 1, 1), jnp.zeros(shape, input_dtype(model.spec.encoder)))
    task = jax.eval_shape(
        partial(learner.adapt, ctx=learner.test_context),
        model.params, model.learner_state, episode.support, jax.random.key(0),
    )  # fmt: skip
    return isinstance(task, dict) and "fast" in task


def _in_order(layers: dict[str, Any]) -> list[str]:
    """The layers from input to output, since ``jit`` sorts them by name."""
    return sorted(layers, key=lambda name: (name == HEAD, len(name), name))
