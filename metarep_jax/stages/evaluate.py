"""Judging models on test episodes and labelled splits."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.data import Protocol, Splits, check_episode_spec, make_augment
from metarep_jax.encoders import count_parameters, input_dtype
from metarep_jax.encoders.features import Identity, compute_features, over_views
from metarep_jax.evaluate import (
    Interval,
    feature_pool,
    few_shot_values,
    interval,
    interval_over_seeds,
    linear_probe,
    nearest_neighbours,
    split_examples,
)
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model
from metarep_jax.report.episodes import save_episodes
from metarep_jax.report.results import Cell, Cells
from metarep_jax.stages.compute import EPISODES, Compute
from metarep_jax.train import on_main_process
from metarep_jax.types import EpisodeSpec, NormMode, Pool, episode_of

log = logging.getLogger(__name__)
NUDGE = jax.jit(make_augment("nudge"))  # one object, so that it is compiled once for all models
MODES: tuple[NormMode, ...] = ("running", "support", "one_query", "transductive")
BASELINES = {
    "nearest prototype": LearnerConfig("prototypical", distance="cosine"),
    "logistic regression": LearnerConfig("logistic_regression"),
}


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """Test episodes."""

    ways: tuple[int, ...] | None = None
    """Classes of an episode; one column for each pair of way and shot. Default: the protocol's (5 and 20)."""
    shots: tuple[int, ...] | None = None
    """Support examples a class; default: the protocol's (1 and 5)."""
    query: int | None = None
    """Queries a class; default: the protocol's, at most what the smallest class leaves."""
    episodes: int | None = None
    """Episodes of the main figures; default: the protocol's (2,000)."""
    mode_episodes: int = 200
    """Episodes of the figures under the other batch-norm modes."""
    views: int = 0
    """Frozen features of images are averaged over so many slightly moved views ("nudge") beside the image itself."""
    every_mode: bool = False
    """Judge every column under the other batch-norm modes, not the first alone (slow: one_query runs the whole support
    set anew for each query)."""

    def __post_init__(self):
        for name in ("ways", "shots"):
            values = getattr(self, name)
            if values is not None and (not values or min(values) < 1):
                raise ValueError(f"evaluate.{name} must be positive, got {values}")
        if self.views < 0:
            raise ValueError(f"evaluate.views must not be negative, got {self.views}")
        for name in ("episodes", "mode_episodes", "query"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"evaluate.{name} must be at least 1, got {value}")

    def specs(self, protocol: Protocol, pool: Pool) -> list[EpisodeSpec]:
        """The episodes of each column; ways beyond the pool's classes are left out."""
        classes = pool.count.shape[0] * (4 if protocol.test_rotations == "classes" else 1)
        smallest = int(np.asarray(pool.count).min())
        query = self.query or protocol.query
        return [
            EpisodeSpec(way, shot, max(min(query, smallest - shot), 1), protocol.test_rotations)
            for way in self.ways or protocol.ways
            if way <= classes
            for shot in self.shots or protocol.shots
        ]

    def columns(self, protocol: Protocol, pool: Pool) -> list[EpisodeSpec]:
        """``specs``; where there are too few classes for any, those of all classes, of the shots that leave a query; of
        a single class, none."""
        classes = pool.count.shape[0]
        if classes < 2:
            return []
        specs = self.specs(protocol, pool)
        shots = tuple(shot for shot in self.shots or protocol.shots if shot < int(np.asarray(pool.count).min()))
        return specs or (dataclasses.replace(self, ways=(classes,), shots=shots).specs(protocol, pool) if shots else [])


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
    specs = settings.columns(splits.protocol, splits.test)
    episodes = settings.episodes or splits.protocol.episodes
    return few_shot_columns(model, splits, specs, compute, episodes=episodes, views=settings.views)


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
    """
    pool: Pool = getattr(splits, part)
    columns, once = {}, None
    for spec in specs:
        if model.fixed_way and spec.way != model.spec.way:
            continue
        check_episode_spec(pool, spec, splits.class_names[part], part)
        learner, params, state = model.learner(spec.way), model.params, model.learner_state
        rows, sampled = pool, spec
        norm = mode or splits.protocol.norm or learner.test_context.norm
        ctx = dataclasses.replace(learner.test_context, norm=norm, inner_steps=inner_steps)
        if ctx.norm == "running" and learner.shares_encoder and spec.rotations != "random":
            if once is None:
                features = embed or averaged_features(model, views)
                once = feature_pool(features, pool, rotations=spec.rotations == "classes")
            identity: Any = Identity()
            learner = make_learner(model.spec.learner, identity, way=spec.way)
            params, state = params | {"encoder": {}}, state | {"encoder": {}}
            rows, sampled = once, dataclasses.replace(spec, rotations="none")
        accuracies = few_shot_values(
            learner, params, state, rows, sampled,
            key=compute.key(EPISODES), episodes=episodes, ctx=ctx, mapper=compute.mapper,
        )  # fmt: skip
        columns[spec.name] = interval(accuracies)
        if values is not None:
            values[spec.name] = accuracies
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
    specs = settings.columns(protocol, splits.test)
    episodes = settings.episodes or protocol.episodes
    judged = specs if settings.every_mode else specs[:1]
    rows: Cells = {}
    values: dict[str, dict[str, np.ndarray]] = {}
    for row, model in models.items():
        log.info("evaluating %s on %d episodes a column", row, episodes)
        values[row] = {}
        rows[row] = as_cells(
            few_shot_columns(
                model, splits, specs, compute,
                episodes=episodes, inner_steps=inner_steps, views=settings.views, values=values[row],
            )
        )  # fmt: skip
        if not modes or not specs:
            continue
        own = protocol.norm or model.learner(specs[0].way).test_context.norm
        for mode in MODES:
            if mode == own or model.spec.encoder.get("norm") != "batch":
                continue
            rows[f"{row} ({mode})"] = as_cells(
                few_shot_columns(
                    model, splits, judged, compute,
                    episodes=settings.mode_episodes, mode=mode, inner_steps=inner_steps,
                )
            )  # fmt: skip
    if on_main_process():
        source = {"data": splits.digest, "protocol": protocol.name, "seed": str(compute.seed)}
        save_episodes(compute.folder, values, **source)
    return rows


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


def probe_rows(model: Model, splits: Splits) -> Cells:
    """A linear probe and nearest neighbours on the test classes, a quarter of each class's images held out, always the
    same; nothing of a single class."""
    pool = splits.test
    if pool.count.shape[0] < 2:
        return {}
    features = compute_features(model.embed, pool.inputs)
    train, test = split_examples(pool, jax.random.key(0))
    split = (features[train], pool.label[train], features[test], pool.label[test])
    column = f"all {pool.count.shape[0]} classes"
    return {
        "linear probe": as_cells({column: linear_probe(*split)}),
        "nearest neighbours": as_cells({column: nearest_neighbours(*split)}),
    }


def mean_over_models(each: Sequence[Cells], *, one_test: bool = True) -> Cells:
    """The means over several models, such as one a seed, of the cells that all of them have.

    ``one_test``: whether all were judged on the same episodes.
    """
    first, *others = each
    if not others:
        return first

    def mean(row: str, column: str) -> Cell:
        mean, ci95, n = interval_over_seeds([Interval(**cells[row][column]) for cells in each], one_test=one_test)
        return {"mean": mean, "ci95": ci95, "n": n}

    shared = {
        row: [column for column in columns if all(column in other.get(row, {}) for other in others)]
        for row, columns in first.items()
    }
    return {row: {column: mean(row, column) for column in columns} for row, columns in shared.items() if columns}


def joined(first: Cells, second: Cells) -> Cells:
    """The rows of both; of a row that both have, the columns of both."""
    return {row: {**first.get(row, {}), **second.get(row, {})} for row in [*first, *second]}


def as_cells(columns: Mapping[str, Interval]) -> dict[str, Cell]:
    """A row of a result file: each column's interval as a cell."""
    return {column: Cell(**value.cell()) for column, value in columns.items()}


def parameter_cells(models: dict[str, Model]) -> Cells:
    """The ``parameters`` column: scalars of the encoder and, where there is one, the head."""
    return {
        row: {"parameters": {"mean": count_parameters(model.params), "ci95": None, "n": 1}}
        for row, model in models.items()
    }
