"""Judging models on test episodes and labelled splits."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.data import Protocol, Splits, check_episode_spec, make_augment
from metarep_jax.data.tasks.episodes import TEST_FLAGS
from metarep_jax.encoders import input_dtype
from metarep_jax.encoders.features import Identity, over_views
from metarep_jax.evaluate import (
    Interval,
    feature_pool,
    few_shot_values,
    interval,
)
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model
from metarep_jax.report.episodes import save_episodes
from metarep_jax.report.results import Cells
from metarep_jax.stages.columns import EvaluateSettings
from metarep_jax.stages.compute import EPISODES, Compute
from metarep_jax.stages.progress import Show, in_parts, shown_batches, silent
from metarep_jax.stages.result_cells import as_cells
from metarep_jax.train import on_main_process, track
from metarep_jax.types import EpisodeSpec, NormMode, Pool, episode_of

log = logging.getLogger(__name__)
NUDGE = jax.jit(make_augment("nudge"))  # one object, so that it is compiled once for all models
MODES: tuple[NormMode, ...] = ("running", "support", "one_query", "transductive")
BASELINES = {
    "nearest prototype": LearnerConfig("prototypical", distance="cosine"),
    "logistic regression": LearnerConfig("logistic_regression"),
}


def evaluate(
    model: Model, splits: Splits, settings: EvaluateSettings | None = None, compute: Compute | None = None
) -> dict[str, Interval]:
    """Accuracy in % on test episodes, with its 95% interval, by column (such as "5w1s").

    Args:
      model: a learner, or frozen features.
      splits: with the test classes.
      settings: which columns, and how many episodes; default: the protocol's.
      compute: its seed chooses the episodes, the same for every model.
    """
    settings, compute = settings or EvaluateSettings(), compute or Compute()
    specs = settings.columns_of(model, splits.protocol, splits.test)
    episodes = settings.episodes or splits.protocol.episodes
    with track("evaluate", len(specs), unit="columns", visible=bool(specs)) as show:
        return few_shot_columns(model, splits, specs, compute, episodes=episodes, views=settings.views, show=show)


def few_shot_columns(
    model: Model,
    splits: Splits,
    specs: Sequence[EpisodeSpec],
    compute: Compute,
    *,
    part: str = "test",
    episodes: int,
    mode: NormMode | None = None,
    inner_steps: int | None = None,
    views: int = 0,
    embed: Callable[[Any], Any] | None = None,
    values: dict[str, np.ndarray] | None = None,
    show: Show = silent,
) -> dict[str, Interval]:
    """Accuracy in % by column. Columns that a learner with a head of its own cannot take are left out.

    Under running statistics features do not depend on the task, so those of the whole pool are computed once, for any
    learner that shares its encoder.

    Args:
      model: what is judged.
      splits: whose ``part`` ("test" or "val") gives the episodes.
      specs: the columns' episodes.
      compute: see ``evaluate``.
      episodes: of each column.
      mode: whose statistics batch norm uses; None: the protocol's, or else the learner's own.
      inner_steps: at test; None: the learner's own.
      views: of each image, over which frozen features are averaged.
      embed: gives the features in place of the model's own encoder.
      values: gets each column's accuracies, episode by episode.
      show: told how many columns are done, and what goes on.

    Raises:
      ValueError: for episodes that the part's classes cannot serve.
    """
    pool: Pool = getattr(splits, part)
    columns, once = {}, None
    for number, spec in enumerate(specs):
        show(number, spec.name)
        if model.fixed_way and spec.way != model.spec.way:
            continue
        check_episode_spec(pool, spec, splits.class_names[part], part, TEST_FLAGS)
        learner, params, state = model.learner(spec.way), model.params, model.learner_state
        rows, sampled = pool, spec
        norm = mode or splits.protocol.norm or learner.test_context.norm
        ctx = dataclasses.replace(learner.test_context, norm=norm, inner_steps=inner_steps)
        if ctx.norm == "running" and learner.shares_encoder and spec.rotations != "random":
            if once is None:
                turns = 4 if spec.rotations == "classes" else 1
                note = partial(show, number)
                features = shown_batches(embed or averaged_features(model, views), turns * len(pool.label), note)
                once = feature_pool(features, pool, rotations=spec.rotations == "classes")
            identity: Any = Identity()
            learner = make_learner(model.spec.learner, identity, way=spec.way)
            params, state = params | {"encoder": {}}, state | {"encoder": {}}
            rows, sampled = once, dataclasses.replace(spec, rotations="none")
        accuracies = few_shot_values(
            learner, params, state, rows, sampled,
            key=compute.key(EPISODES), episodes=episodes, ctx=ctx,
            mapper=in_parts(compute.mapper, partial(show, number), spec.name),
        )  # fmt: skip
        columns[spec.name] = interval(accuracies)
        if values is not None:
            values[spec.name] = accuracies
    show(len(specs), "")
    return columns


def averaged_features(model: Model, views: int) -> Callable[[Any], Any]:
    """The model's features, averaged over ``views`` of each image; the same views whatever the seed.

    Raises:
      ValueError: for views of anything but images.
    """
    if not views:
        return model.embed
    if len(model.spec.shape) != 3:
        raise ValueError("evaluate.views are of images, and this model's inputs are none; leave --evaluate.views out")
    return over_views(model.embed, NUDGE, views, jax.random.key(0))


def few_shot_rows(
    models: dict[str, Model],
    splits: Splits,
    settings: EvaluateSettings,
    compute: Compute,
    *,
    modes: bool = False,
    inner_steps: int | None = None,
) -> Cells:
    """Cells of a result file: a row a model, and with ``modes`` a row a model and batch-norm mode beside it.

    Accuracies episode by episode are kept in the folder of ``compute``, for ``experiments.compare``.
    """
    protocol = splits.protocol
    episodes = settings.episodes or protocol.episodes
    rows: Cells = {}
    values: dict[str, dict[str, np.ndarray]] = {}
    columns = {row: settings.columns_of(model, protocol, splits.test) for row, model in models.items()}
    with_modes = {row: other_modes(model, protocol) if modes and columns[row] else [] for row, model in models.items()}
    judged = {row: specs if settings.every_mode else specs[:1] for row, specs in columns.items()}
    total = sum(len(columns[row]) + len(judged[row]) * len(with_modes[row]) for row in models)
    done = 0
    with track("evaluate", total, unit="columns", visible=total > 0) as advance:

        def show_row(row: str) -> Show:
            before = done
            return lambda own, note="": advance(before + own, f"{row} {note}")

        for row, model in models.items():
            values[row] = {}
            rows[row] = as_cells(
                few_shot_columns(
                    model, splits, columns[row], compute,
                    episodes=episodes, inner_steps=inner_steps, views=settings.views, values=values[row],
                    show=show_row(row),
                )
            )  # fmt: skip
            done += len(columns[row])
            for mode in with_modes[row]:
                name = f"{row} ({mode})"
                rows[name] = as_cells(
                    few_shot_columns(
                        model, splits, judged[row], compute,
                        episodes=settings.mode_episodes, mode=mode, inner_steps=inner_steps, show=show_row(name),
                    )
                )  # fmt: skip
                done += len(judged[row])
    if on_main_process():
        source = {"data": splits.digest, "protocol": protocol.name, "seed": str(compute.seed)}
        save_episodes(compute.folder, values, **source)
    return rows


def log_notes(notes: Sequence[str]) -> list[str]:
    """The notes, said in the log before a training too."""
    for note in notes:
        log.warning("%s", note)
    return list(notes)


def other_modes(model: Model, protocol: Protocol) -> list[NormMode]:
    """The batch-norm modes beside that of the protocol, or else of the model's learner; none without batch norm."""
    own = protocol.norm or model.learner(model.spec.way).test_context.norm
    return [mode for mode in MODES if mode != own] if model.spec.encoder.get("norm") == "batch" else []


def frozen_features(model: Model, learner: LearnerConfig) -> Model:
    """Another learner from the model's encoder, as it is before any meta-training of its own."""
    variables = model.encoder_params
    spec = dataclasses.replace(model.spec, learner=learner, kind="learner")
    params, state = {"encoder": variables["params"]}, {"encoder": variables["batch_stats"]}
    bare = dataclasses.replace(model, spec=spec, params=params, state=state)
    blank = episode_of(EpisodeSpec(way=spec.way), jnp.zeros((1, *spec.shape), input_dtype(spec.encoder)))
    start = {"params": params["encoder"], "batch_stats": bare.learner_state["encoder"]}
    own_params, own_state = bare.learner(spec.way).init(jax.random.key(0), blank, start)
    return dataclasses.replace(bare, params={**own_params, **params}, state={**own_state, **state})
