"""Judge a finished run on test episodes: every learner that applies, under every batch-norm mode.

    python -m experiments.evaluate --model runs/pretrain-glyphs
    python -m experiments.evaluate --model runs/pipeline-omniglot/student --data.name omniglot --data.data-dir DIR
    python -m experiments.evaluate --model runs/pretrain-glyphs --learner finetune_head finetune_all scratch
    python -m experiments.evaluate --model runs/seed0 runs/seed1 runs/seed2
    python -m experiments.evaluate --model runs/pretrain-glyphs --checkpoint 1500    # or 0, the latest of a training

Rows: the model itself under each mode, nearest prototype and logistic regression on its frozen features, the learners
of --learner from its encoder, a linear probe and weighted nearest neighbours on a labelled split of the test classes;
and of an objective that reconstructs or predicts, what it makes of the test rows by itself, with figures.

The labelled split is always the same. Of several models, such as one a seed, means are given, with the wider interval
of that over examples and that over models.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkpoints import model_at
from experiments.cli import console, parse
from experiments.common import CommonConfig, Run, finish, loaded, run_experiment
from experiments.figures import embedding_figure
from experiments.objectives import held_out_cells, judge_in_folder, objective_figures
from metarep_jax.data import Protocol, check_episode_spec, make_augment
from metarep_jax.encoders import input_dtype
from metarep_jax.encoders.features import Identity, compute_features, over_views
from metarep_jax.evaluate import (
    Interval,
    feature_pool,
    few_shot_accuracy,
    interval_over_seeds,
    linear_probe,
    nearest_neighbours,
    split_examples,
)
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.model import Model
from metarep_jax.pretrain.trained import load_objective
from metarep_jax.report import results
from metarep_jax.types import EpisodeSpec, NormMode, Pool, episode_of

NUDGE = jax.jit(make_augment("nudge"))  # one object, so that it is compiled once for all models
MODES: tuple[NormMode, ...] = ("running", "support", "one_query", "transductive")


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """Test episodes."""

    ways: tuple[int, ...] = (5, 20)
    """Classes of an episode; one column for each pair of way and shot."""
    shots: tuple[int, ...] = (1, 5)
    """Support examples a class."""
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
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"EvaluateSettings.{name} must be positive, got {getattr(self, name)}")
        if self.views < 0:
            raise ValueError(f"EvaluateSettings.views must not be negative, got {self.views}")
        for name in ("episodes", "mode_episodes", "query"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"EvaluateSettings.{name} must be at least 1, got {value}")

    def specs(self, protocol: Protocol, pool: Pool) -> list[EpisodeSpec]:
        """The episodes of each column; ways beyond the pool's classes are left out."""
        classes = pool.count.shape[0] * (4 if protocol.test_rotations == "classes" else 1)
        smallest = int(np.asarray(pool.count).min())
        query = self.query or protocol.query
        return [
            EpisodeSpec(way, shot, max(min(query, smallest - shot), 1), protocol.test_rotations)
            for way in self.ways
            if way <= classes
            for shot in self.shots
        ]

    def columns(self, protocol: Protocol, pool: Pool) -> list[EpisodeSpec]:
        """``specs``; where there are too few classes for any, those of all classes, of the shots that leave a query; of
        a single class, none."""
        classes = pool.count.shape[0]
        if classes < 2:
            return []
        found = self.specs(protocol, pool)
        shots = tuple(shot for shot in self.shots if shot < int(np.asarray(pool.count).min()))
        return found or (dataclasses.replace(self, ways=(classes,), shots=shots).specs(protocol, pool) if shots else [])


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(CommonConfig):
    """Flags of experiments.evaluate. The encoder is the model's own; --encoder flags are not used."""

    model: tuple[Path, ...] = (Path("runs/quickstart"),)
    """Folder of a finished run; or several, of the same method from different seeds."""
    checkpoint: int | None = None
    """Step of a checkpoint to judge in place of the finished model, of a run that may be under way; 0: the latest. A
    training keeps its last ones, as many as its train.keep. Whitening is fitted on the training rows of the data given
    here; what only finished runs keep, such as decoders, is not judged."""
    learner: tuple[str, ...] = ()
    """More learners to judge, by name or as my_module:my_learner: each a row, from the model's encoder and without
    meta-training of its own."""
    evaluate: EvaluateSettings = EvaluateSettings()
    inner_steps: int | None = None
    """Inner steps at test; default: the learner's own."""

    def __post_init__(self):
        super().__post_init__()
        if self.checkpoint is not None and self.checkpoint < 0:
            raise ValueError(f"checkpoint must be a step, or 0 for the latest, got {self.checkpoint}")
        if not self.model:
            raise ValueError("model must be the folder of a finished run, or several; got none")
        for name in self.learner:
            LearnerConfig(name)


def evaluate_model(
    run: Run,
    model: Model,
    pool: Pool,
    specs: list[EpisodeSpec],
    *,
    episodes: int,
    mode: NormMode | None = None,
    inner_steps: int | None = None,
    views: int = 0,
    embed: Callable[[Any], Any] | None = None,
) -> dict[str, Interval]:
    """Accuracy in % by column. Columns that a learner with a head of its own cannot take are left out.

    Batch norm uses the statistics that ``mode`` names, or the protocol, or else the learner.

    Under running statistics features do not depend on the task, so those of the whole pool are computed once, averaged
    over ``views`` of each image where any are asked for; or by ``embed``, in place of the model's own.
    """
    found, once = {}, None
    split = "val" if pool is run.splits.val else "test"
    for spec in specs:
        if model.fixed_way and spec.way != model.spec.way:
            continue
        check_episode_spec(pool, spec, run.splits.class_names[split], split)
        learner, params, state = model.learner(spec.way), model.params, model.learner_state
        rows, sampled = pool, spec
        norm = mode or run.splits.protocol.norm or learner.test_context.norm
        ctx = dataclasses.replace(learner.test_context, norm=norm, inner_steps=inner_steps)
        if ctx.norm == "running" and not adapts_encoder(model.spec.learner.name) and spec.rotations != "random":
            if once is None:
                features = embed or averaged(run, model, views)
                once = feature_pool(features, pool, rotations=spec.rotations == "classes")
            identity: Any = Identity()
            learner = make_learner(model.spec.learner, identity, way=spec.way)
            params, state = params | {"encoder": {}}, state | {"encoder": {}}
            rows, sampled = once, dataclasses.replace(spec, rotations="none")
        found[spec.name] = few_shot_accuracy(
            learner, params, state, rows, sampled, key=run.key(2), episodes=episodes, ctx=ctx, mapper=run.mapper
        )
    return found


def averaged(run: Run, model: Model, views: int) -> Callable[[Any], Any]:
    """The model's features, averaged over ``views`` of each image; the same views whatever the run's seed.

    Raises:
      ValueError: for views of anything but images.
    """
    if not views:
        return model.embed
    if not run.has_images:
        raise ValueError(f"evaluate.views are of images, and {run.config.data.name} has none; leave it out")
    return over_views(model.embed, NUDGE, views, jax.random.key(0))


def cells_of(
    run: Run,
    models: dict[str, Model],
    settings: EvaluateSettings,
    modes: bool = False,
    inner_steps: int | None = None,
) -> dict[str, Any]:
    """Cells of a result file: a row a model, and with ``modes`` a row a model and batch-norm mode beside it."""
    pool, protocol = run.splits.test, run.splits.protocol
    specs = settings.columns(protocol, pool)
    episodes = settings.episodes or protocol.episodes
    judged = specs if settings.every_mode else specs[:1]
    cells = {}
    for row, model in models.items():
        with console.status(f"evaluating {row} on {episodes} episodes a column"):
            found = evaluate_model(
                run, model, pool, specs, episodes=episodes, inner_steps=inner_steps, views=settings.views
            )
        cells[row] = {column: value.cell() for column, value in found.items()}
        if not modes or not specs:
            continue
        own = protocol.norm or model.learner(specs[0].way).test_context.norm
        for mode in MODES:
            if mode == own or model.spec.encoder.norm != "batch":
                continue
            with console.status(f"evaluating {row}, {mode} statistics, on {settings.mode_episodes} episodes a column"):
                found = evaluate_model(
                    run, model, pool, judged, episodes=settings.mode_episodes, mode=mode, inner_steps=inner_steps
                )
            cells[f"{row} ({mode})"] = {column: value.cell() for column, value in found.items()}
    return cells


def frozen(model: Model, learner: LearnerConfig) -> Model:
    """Another learner from the model's encoder, as it is before any meta-training of its own."""
    variables = model.encoder_params
    spec = dataclasses.replace(model.spec, learner=learner, kind="learner")
    body = {"encoder": variables["params"]}, {"encoder": variables["batch_stats"]}
    found = dataclasses.replace(model, spec=spec, params=body[0], state=body[1], _compiled={})
    blank = episode_of(EpisodeSpec(way=spec.way), jnp.zeros((1, *spec.shape), input_dtype(spec.encoder)))
    given = {"params": body[0]["encoder"], "batch_stats": found.learner_state["encoder"]}
    params, state = found.learner(spec.way).init(jax.random.key(0), blank, given)
    return dataclasses.replace(found, params={**params, **body[0]}, state={**state, **body[1]})


BASELINES = {
    "nearest prototype": LearnerConfig(name="prototypical", distance="cosine"),
    "logistic regression": LearnerConfig(name="logistic_regression"),
}


def probe_cells(run: Run, model: Model) -> dict[str, Any]:
    """A linear probe and nearest neighbours on the test classes, a quarter of each class's images held out, always the
    same; nothing of a single class."""
    if not run.has_classes:
        return {}
    pool = run.splits.test
    features = compute_features(model.embed, pool.inputs)
    train, test = split_examples(pool, jax.random.key(0))
    split = (features[train], pool.label[train], features[test], pool.label[test])
    column = f"all {pool.count.shape[0]} classes"
    return {
        "linear probe": {column: linear_probe(*split).cell()},
        "nearest neighbours": {column: nearest_neighbours(*split).cell()},
    }


def cells_of_model(run: Run, model: Model) -> results.Cells:
    """All rows of one model.

    Raises:
      ValueError: for data of another shape than the model takes.
    """
    config = run.config
    if tuple(run.splits.test.inputs.shape[1:]) != model.spec.shape:
        raise ValueError(
            f"the model takes inputs of shape {model.spec.shape}, {config.data.name} gives "
            f"{tuple(run.splits.test.inputs.shape[1:])}; set --data.image-size to match"
        )
    cells = {}
    if model.spec.kind == "learner":
        cells |= cells_of(run, {"model": model}, config.evaluate, modes=True, inner_steps=config.inner_steps)
    for row, learner in BASELINES.items():
        cells |= cells_of(run, {row: frozen(model, learner)}, config.evaluate)
    for name in config.learner:
        row = {name: frozen(model, LearnerConfig(name=name))}
        cells |= cells_of(run, row, config.evaluate, inner_steps=config.inner_steps)
    return cells | probe_cells(run, model)


def over_models(found: Sequence[results.Cells]) -> results.Cells:
    """The means over several models of the cells that all of them have."""
    first, *others = found
    if not others:
        return first

    def mean(row: str, column: str) -> results.Cell:
        mean, ci95, n = interval_over_seeds([Interval(**each[row][column]) for each in found], one_test=True)
        return {"mean": mean, "ci95": ci95, "n": n}

    shared = {
        row: [column for column in columns if all(column in other.get(row, {}) for other in others)]
        for row, columns in first.items()
    }
    return {row: {column: mean(row, column) for column in columns} for row, columns in shared.items() if columns}


def joined(first: results.Cells, second: results.Cells) -> results.Cells:
    """The rows of both; of a row that both have, the columns of both."""
    return {row: {**first.get(row, {}), **second.get(row, {})} for row in [*first, *second]}


def models_of(run: Run, folders: Sequence[Path]) -> tuple[list[Model], str]:
    """The finished models of runs, or those of the checkpoint that is asked for, and what to say of them.

    Raises:
      FileNotFoundError: where there is no such model.
      ValueError: for models that do not fit the data, or differ in kind or step.
    """
    step = run.config.checkpoint
    if step is None:
        for folder in folders:
            if not (folder / "model" / "spec.json").is_file() and (folder / "checkpoints").is_dir():
                raise FileNotFoundError(
                    f"the training in {folder} is not finished; its own command goes on with it, --checkpoint 0 judges "
                    "what there is"
                )
        models, said = [loaded(run, folder) for folder in folders], ""
    else:
        found = [model_at(run, folder, step or None) for folder in folders]
        if len(steps := {at for _, at in found}) > 1:
            raise ValueError(f"the latest checkpoints are of steps {sorted(steps)}; give a step that all of them have")
        models, said = [model for model, _ in found], f"the checkpoint of step {steps.pop()}"
    if others := [str(folder) for folder, model in zip(folders, models) if model.spec != models[0].spec]:
        raise ValueError(f"a mean is over models of one kind; {', '.join(others)} differ from {folders[0]}")
    return models, said


def work(run: Run) -> None:
    folders = run.config.model
    models, said = models_of(run, folders)
    objective = load_objective(folders[0]) if run.config.checkpoint is None else None  # kept of the last step alone
    if objective is None and not run.has_classes:
        raise ValueError(
            f"there is nothing to judge: the test rows of {run.config.data.name} are of one class, and {folders[0]} "
            "holds no objective that could be judged by itself (only a finished run of experiments.pretrain keeps one, "
            "and not for its checkpoints)"
        )
    cells = over_models([cells_of_model(run, model) for model in models])
    if objective is not None:
        judge_in_folder(run, run.folder, models[0].spec.encoder, objective)
        cells = joined(cells, held_out_cells(run.folder))
    several = f"means over {len(models)} models; figures and rows of the objective are the first's"
    finish(
        run,
        {row: columns for row, columns in cells.items() if columns},
        figure_paths=[*([embedding_figure(run, models[0])] if run.has_classes else []), *objective_figures(run.folder)],
        notes=[*([said] if said else []), *([several] if len(models) > 1 else [])],
    )


if __name__ == "__main__":
    run_experiment("evaluate", work, parse(EvaluateConfig, __doc__))
