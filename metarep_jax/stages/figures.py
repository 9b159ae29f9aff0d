"""The figures of a stage or an experiment, drawn from its data, models and metrics into FOLDER/figures."""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.data import Splits, make_augment, sample_episodes
from metarep_jax.encoders import input_dtype, make_encoder
from metarep_jax.encoders.layers import as_image_float
from metarep_jax.evaluate import adaptation_similarity, interval, occlusion_maps, variables_similarity
from metarep_jax.evaluate.similarity import HEAD
from metarep_jax.model import Model
from metarep_jax.report import figures
from metarep_jax.report.results import Cell, Cells, Result
from metarep_jax.stages.compute import EPISODE, LAYER_ROWS, LAYERS, OCCLUSION, UNTRAINED, VIEWS, VIEWS_ROWS, Compute
from metarep_jax.train import on_main_process
from metarep_jax.types import EpisodeSpec, episode_of

Drawn = ParamSpec("Drawn")
MAP_CLASSES, MAP_IMAGES = 12, 12  # of the embedding map: few enough that colours can be told apart
VIEWED = 8  # training images in the figure of views
LAYER_TASKS, LAYER_IMAGES = 20, 256  # behind the figure of the layers


def drawn_once(draw: Callable[Concatenate[Path, Drawn], None]) -> Callable[Concatenate[Path, Drawn], Path]:
    """``draw(path, ...)`` as ``NAME_figure(folder, ...) -> path``, done by the main one of several processes.

    The path is ``folder/figures/NAME.png``.
    """

    @functools.wraps(draw)
    def figure(folder: Path, *args: Drawn.args, **kwargs: Drawn.kwargs) -> Path:
        path = folder / "figures" / f"{draw.__name__.removesuffix('_figure')}.png"
        if on_main_process():
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(path, *args, **kwargs)
        return path

    return figure


def serves_tasks(splits: Splits, model: Model) -> bool:
    """Whether the test classes can serve a task of the model, for the figures of layers and of occlusion."""
    count = np.asarray(splits.test.count)
    return len(count) >= 2 and int(count.min()) >= 2 and not (model.fixed_way and model.spec.way > len(count))


@drawn_once
def views_figure(path: Path, splits: Splits, compute: Compute, preset: str) -> None:
    """Training images beside augmented views of them."""
    images, shown = splits.train.label.shape[0], min(VIEWED, splits.train.label.shape[0])
    rows = np.asarray(jax.random.choice(compute.key(VIEWS_ROWS), images, (shown,), replace=False))
    images = splits.train.inputs[rows]
    augment = jax.jit(make_augment(preset))
    views = [augment(jax.random.split(compute.key(VIEWS + view), shown), images) for view in range(6)]
    figures.save_views(path, np.asarray(images), np.stack(views, axis=1))


@drawn_once
def episode_figure(path: Path, splits: Splits, compute: Compute, spec: EpisodeSpec) -> None:
    """One training episode."""
    figures.save_episode(
        path, jax.device_get(jax.jit(sample_episodes, static_argnames="spec")(compute.key(EPISODE), splits.train, spec))
    )


@drawn_once
def curves_figure(path: Path, stages: dict[str, Path]) -> None:
    """Loss and accuracies of the stages over their steps."""
    figures.save_learning_curves(path, {name: folder / "metrics.jsonl" for name, folder in stages.items()})


@drawn_once
def embedding_figure(path: Path, splits: Splits, model: Model) -> None:
    """Features of a few test classes in two dimensions."""
    pool = splits.test
    classes = np.linspace(0, pool.count.shape[0] - 1, min(MAP_CLASSES, pool.count.shape[0])).astype(int)
    rows = np.concatenate([np.asarray(pool.members[c, : min(int(pool.count[c]), MAP_IMAGES)]) for c in classes])
    names = splits.class_names["test"]
    figures.save_embedding_map(path, np.asarray(model.embed(pool.inputs[rows])), np.asarray(pool.label[rows]), names)


@drawn_once
def layers_figure(path: Path, splits: Splits, compute: Compute, model: Model, before: Any = None) -> None:
    """CKA of the layers before and after adaptation to test tasks, and before and after meta-training.

    Args:
      path, splits, compute: the figure, the data, and the seed.
      model: meta-learned.
      before: the encoder's variables that meta-training started from; None: those of its random initialisation.
    """
    pool, encoder = splits.test, make_encoder(model.spec.encoder)
    comparisons: dict[str, dict[str, Cell]] = {}
    spec = EpisodeSpec(min(model.spec.way, pool.count.shape[0]), 1, min(15, int(pool.count.min()) - 1))
    learner = model.learner(spec.way)

    def one(key: Any) -> dict[str, Any]:
        episode = sample_episodes(key, pool, spec)
        return adaptation_similarity(learner, encoder, model.params, model.learner_state, episode, key)

    if _gradient_based(model):
        found = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(compute.key(LAYERS), LAYER_TASKS))
        comparisons["before and after adaptation"] = {
            name: Cell(**interval(np.asarray(found[name])).cell()) for name in _in_order(found)
        }
    images = min(LAYER_IMAGES, pool.label.shape[0])
    rows = np.asarray(jax.random.choice(compute.key(LAYER_ROWS), pool.label.shape[0], (images,), replace=False))
    inputs = jnp.asarray(pool.inputs[rows])
    before = jax.jit(encoder.init)(compute.key(UNTRAINED), inputs[:1]) if before is None else before
    moved = jax.jit(partial(variables_similarity, encoder))(before, model.encoder_params, inputs)
    comparisons["before and after meta-training"] = {
        name: {"mean": float(moved[name]), "ci95": None, "n": 1} for name in _in_order(moved)
    }
    figures.save_layer_similarity(path, comparisons)


@drawn_once
def occlusion_figure(path: Path, splits: Splits, compute: Compute, model: Model) -> None:
    """What the adapted model looks at in one query of each class of a test task."""
    pool = splits.test
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

    images, maps = jax.jit(draw)(compute.key(OCCLUSION))
    figures.save_occlusion(path, np.asarray(images), np.asarray(maps))


@drawn_once
def bars_figure(path: Path, result: Result | Cells) -> None:
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
