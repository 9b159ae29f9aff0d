"""Judging models on test episodes and labelled splits."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.data import Protocol, Splits, check_episode_spec, make_augment, usable_columns
from metarep_jax.data.episodes import TEST_FLAGS, smallest_class
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
from metarep_jax.stages.progress import Show, in_parts, shown_batches, silent
from metarep_jax.train import on_main_process, track
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
        """``specs`` that every class can serve; where there are too few classes for any way, those of all classes; of a
        single class, none."""
        return self._usable(protocol, pool)[0]

    def notes(self, splits: Splits) -> list[str]:
        """A sentence on each column that the test classes cannot serve."""
        return self._usable(splits.protocol, splits.test, splits.class_names["test"])[1]

    def _usable(self, protocol: Protocol, pool: Pool, names: Sequence[str] = ()) -> tuple[list[EpisodeSpec], list[str]]:
        return usable_columns(
            pool,
            self.ways or protocol.ways,
            self.shots or protocol.shots,
            self.query or protocol.query,
            protocol.test_rotations,
            class_names=names,
        )

    def columns_of(self, model: Model, protocol: Protocol, pool: Pool) -> list[EpisodeSpec]:
        """``columns`` that a model can take: of one with a head of its own, those of its way."""
        specs = self.columns(protocol, pool)
        if not model.fixed_way or any(spec.way == model.spec.way for spec in specs):
            return specs
        return [
            spec
            for spec in dataclasses.replace(self, ways=(model.spec.way,)).columns(protocol, pool)
            if spec.way == model.spec.way
        ]


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


def probe_rows(model: Model, splits: Splits) -> Cells:
    """The rows of a linear probe and of nearest neighbours; see ``probes``."""
    column = f"all {splits.test.count.shape[0]} classes"
    return {row: as_cells({column: value}) for row, value in probes(model, splits).items()}


def probes(model: Model, splits: Splits) -> dict[str, Interval]:
    """Accuracy in % of a linear probe and of nearest neighbours on frozen features.

    Of fixed classes, they learn from the training part and are judged on the part for testing; else, of the test
    classes, a quarter of each class's examples is held out, always the same. Nothing where ``probe_note`` says why.
    """
    if probe_note(splits):
        return {}
    pool, embed = splits.test, model.embed
    features = compute_features(embed, pool.inputs)
    if splits.fixed_classes:
        split = (compute_features(embed, splits.train.inputs), splits.train.label, features, pool.label)
    else:
        train, test = split_examples(pool, jax.random.key(0))
        split = (features[train], pool.label[train], features[test], pool.label[test])
    return {"linear probe": linear_probe(*split), "nearest neighbours": nearest_neighbours(*split)}


def probe_note(splits: Splits) -> str | None:
    """Why there is no linear probe and there are no nearest neighbours, if so."""
    pool, names = splits.test, splits.class_names["test"]
    if (classes := pool.count.shape[0]) < 2:
        return f"no linear probe: it needs 2 test classes or more, and there is {classes}" if classes else None
    name, smallest = smallest_class(pool, names)
    if smallest < 2 and not splits.fixed_classes:
        return (
            f"no linear probe and no nearest neighbours: class {name!r} of test has {smallest} example, and each class "
            "needs one to learn from and one to be tested on"
        )
    return None


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
