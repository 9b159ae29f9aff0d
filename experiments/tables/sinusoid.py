"""The table of sinusoid regression: mean squared error after one step on 5 or 10 points, and a figure.

    python -m experiments.tables.sinusoid                        # fewer steps than the papers
    python -m experiments.tables.sinusoid --budget full          # the papers' numbers of steps
    python -m experiments.tables.sinusoid --methods maml cavia ridge

Rows: MAML, first-order MAML, Meta-SGD; beside them ``pretrained_on_all_tasks``, one network trained on all tasks at
once and then fine-tuned at the rate that suits it best, and ``oracle``, a network that is told amplitude and phase. A
learner is trained and judged with the same number of points. To keep a run's result and figure:

    python -m experiments.publish runs/tables/sinusoid/full sinusoid --figures adaptation
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.cli import command_line, console, errors_as_messages, parse
from experiments.tables import published, wall_clock
from experiments.tables.cells import cell_line, cell_result, device_name, merged
from metarep_jax.data.sinusoid_tasks import INPUT, SinusoidSpec, inputs_of, sample_sinusoid, sample_task, sinusoid_feed
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate import Interval, interval, interval_over_seeds
from metarep_jax.metalearn import LEARNERS
from metarep_jax.metalearn.base import squared_error
from metarep_jax.metalearn.maml import maml
from metarep_jax.report.figures.regression import Fit, save_regression
from metarep_jax.report.provenance import device_of_run
from metarep_jax.report.results import Result, write_result
from metarep_jax.report.tables import terminal_table
from metarep_jax.train import FitConfig, OptimiserConfig, fit, local_devices, meta_learning, open_run, use_cpu_devices
from metarep_jax.types import Examples, MetaLearner

TABLE = "sinusoid"
SHOTS = {column: int(column.removesuffix("shot")) for column in published.COLUMNS[TABLE]}
ENCODER = MLP(widths=(40, 40), norm="none")  # Finn et al. 2017, section 5.1
STEPS = (0, 1, 2, 3, 5, 10)  # after which errors are measured
SHOWN = (0, 1, 5, 10)  # after which the figure shows functions
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # among which the pretrained network's is chosen
QUERIES = 100  # of a test task: enough that a task's error is not noise
TRAINING, TEST, CHOICE, PICTURE = range(4)  # streams of randomness
PROTOCOL = (
    "sinusoids of amplitude 0.1–5 and phase 0–π, x in −5–5, two hidden layers of 40 units; mean squared error "
    "after 1 inner step"
)


class Method(NamedTuple):
    """A row: its learner, how it trains by budget, and what its training tasks are."""

    learner: MetaLearner
    steps: dict[str, int]
    tasks: int
    note: str
    told: bool = False
    by_shot: bool = True  # whether each number of points needs a training run of its own
    adapts: bool = True
    rates: tuple[float, ...] = ()  # of fine-tuning, to choose from


def methods(names: tuple[str, ...]) -> dict[str, Method]:
    """The rows, by name: those of the paper, the two baselines, and any learner that takes regression."""
    usual = {"trial": 20, "short": 8_000, "full": 70_000}
    plain: Any = partial(maml, ENCODER, way=1, output="mean", inner_lr=0.01, test_steps=1)
    known = {
        "maml": Method(plain(), usual, 25, "α = 0.01"),
        "first_order_maml": Method(plain(order=1), usual, 25, "α = 0.01"),
        "meta_sgd": Method(
            LEARNERS["meta_sgd"](ENCODER, way=1, output="mean"),
            {"trial": 20, "short": 12_000, "full": 60_000},
            4,
            "α learned from 0.005–0.1",
        ),
        "pretrained_on_all_tasks": Method(
            plain(inner_steps=0), usual, 25, "one network for all tasks, fine-tuned", by_shot=False, rates=RATES
        ),
        "oracle": Method(
            plain(inner_steps=0), usual, 25, "told amplitude and phase, not adapted", told=True, by_shot=False,
            adapts=False,
        ),
    }  # fmt: skip
    found = {}
    for name in names:
        if name not in known and name not in LEARNERS:
            raise ValueError(f"unknown method {name!r}; there are: {', '.join([*known, *LEARNERS])}")
        try:
            found[name] = known.get(name) or Method(
                LEARNERS[name](ENCODER, way=1, output="mean"), usual, 25, "its own default settings"
            )
        except TypeError as error:
            raise ValueError(f"{name} does not take regression tasks: {error}") from error
    return found


@dataclasses.dataclass(frozen=True)
class SinusoidConfig:
    """Flags of experiments.tables.sinusoid."""

    budget: Literal["trial", "short", "full"] = "short"
    """short: fewer steps. full: the papers' numbers of steps. trial: a few steps, to see that all works."""
    methods: tuple[str, ...] = ("maml", "first_order_maml", "meta_sgd", "pretrained_on_all_tasks", "oracle")
    """Rows; besides these, any learner of metarep_jax.metalearn.LEARNERS that takes regression."""
    columns: tuple[str, ...] = tuple(SHOTS)
    """Columns: 5shot, 10shot."""
    seeds: int = 1
    """Training runs a row, of seeds 0 to N-1."""
    test_tasks: int = 2000
    """Tasks that each number is the mean of."""
    run_folder: Path = Path("runs") / "tables" / TABLE
    """Training runs, cells and the figure go below it."""

    def __post_init__(self):
        if unknown := [column for column in self.columns if column not in SHOTS]:
            raise ValueError(f"unknown columns {', '.join(unknown)}; there are: {', '.join(SHOTS)}")
        for name in ("seeds", "test_tasks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        methods(self.methods)

    @property
    def folder(self) -> Path:
        """The budget's."""
        return self.run_folder / self.budget


class Trained(NamedTuple):
    """A trained row: the learner as it is judged, and its parameters, with a word on how it was adapted."""

    learner: MetaLearner
    params: Any
    state: Any
    folder: Path
    note: str


def main(args: list[str] | None = None) -> None:
    """Trains what is not trained yet, judges it, and writes the table and the figure."""
    config = parse(SinusoidConfig, __doc__, args=args)
    with errors_as_messages():
        use_cpu_devices(1)  # the network is too small to share
        cells, models, errors = [], {}, {}
        for row, method in methods(config.methods).items():
            for column in config.columns:
                cell, models[row, column], errors[row, column] = made(config, row, column, method)
                console.print(cell_line(cell), highlight=False)
                cells.append(cell)
        command = command_line(f"experiments.tables.{TABLE}")
        table = merged(TABLE, cells, config.methods, command=command, protocol=PROTOCOL)
        write_result(config.folder / "result.json", table)
        console.print(terminal_table(table))
        picture = config.folder / "figures" / "adaptation.png"
        draw(picture, config.columns[0], models, errors)
        console.print(f"figure: {picture}")


def made(config: SinusoidConfig, row: str, column: str, method: Method) -> tuple[Result, Trained, dict[int, float]]:
    """A cell, the model of its first seed, and its mean errors by step."""
    shot = SHOTS[column]
    models = [trained(config, row, shot, method, seed) for seed in range(config.seeds)]
    begun = time.perf_counter()
    spec = SinusoidSpec(shot, QUERIES, method.told)
    key = jax.random.key(TEST)
    steps = STEPS if method.adapts else (0,)
    values = [np.asarray(errors_by_step(model, spec, key, config.test_tasks, steps)) for model in models]
    step = steps.index(1 if method.adapts else 0)
    intervals: list[Interval] = [interval(value[:, step]) for value in values]
    path = config.folder / row / column / "result.json"
    cell = cell_result(
        TABLE,
        row,
        column,
        interval_over_seeds(intervals),
        budget=config.budget,
        command=command_line(f"experiments.tables.{TABLE}"),
        protocol=f"{PROTOCOL}; {shot} points to adapt on, {QUERIES} to be judged on",
        seeds=list(range(config.seeds)),
        settings={"steps": method.steps[config.budget], "tasks": method.tasks, "test_tasks": config.test_tasks},
        shown={
            "protocol": "Finn et al. 2017, section 5.1",
            "norm": "none",
            "steps": f"{method.steps[config.budget]:,}",
            "tasks": method.tasks,
            "note": models[0].note,
            "seed_means": [round(each.mean, 4) for each in intervals],
        },
        training=str(models[0].folder.relative_to(config.folder).parent),
        train_s=sum(wall_clock.seconds_spent(model.folder) for model in models),
        evaluate_s=time.perf_counter() - begun,
    )
    write_result(path, cell)
    return cell, models[0], {s: float(np.mean([value[:, i] for value in values])) for i, s in enumerate(steps)}


def trained(config: SinusoidConfig, row: str, shot: int, method: Method, seed: int) -> Trained:
    """A row trained on tasks of ``shot`` points."""
    points = shot if method.by_shot else max(SHOTS.values())
    spec, steps = SinusoidSpec(points, points, method.told), method.steps[config.budget]
    folder = config.folder / row / (f"{points}-shot" if method.by_shot else "all") / f"seed{seed}"
    settings = {"row": row, "budget": config.budget, "tasks": method.tasks, "spec": dataclasses.asdict(spec)}
    with open_run(folder, settings), wall_clock.counted(folder, device_name(device_of_run()), steps):
        fitted = fit(
            meta_learning(method.learner, chunk=method.tasks),
            sinusoid_feed(spec, method.tasks),
            optimiser=OptimiserConfig(name="adam", learning_rate=1e-3, schedule="cosine"),
            config=FitConfig(
                steps=steps, batch_size=method.tasks, log_every=max(steps // 20, 1),
                checkpoint_every=max(steps // 4, 1), steps_per_dispatch=500, tensorboard=False,
            ),
            seed=seed,
            folder=folder,
            description=f"{row}, {points} points",
            settings=settings,
            devices=local_devices()[:1],
        )  # fmt: skip
    model = Trained(method.learner, fitted.params, fitted.state, folder, method.note)
    return with_best_rate(model, method.rates, SinusoidSpec(shot, QUERIES)) if method.rates else model


def with_best_rate(model: Trained, rates: tuple[float, ...], spec: SinusoidSpec) -> Trained:
    """The model fine-tuned at the rate that leaves the least error after one step, on tasks of their own."""
    tuned: dict[float, MetaLearner] = {rate: maml(ENCODER, way=1, output="mean", inner_lr=rate) for rate in rates}
    key = jax.random.key(CHOICE)
    scores = {
        rate: float(errors_by_step(model._replace(learner=learner), spec, key, 500, steps=(1,)).mean())
        for rate, learner in tuned.items()
    }
    best = min(rates, key=lambda rate: scores[rate])
    return model._replace(learner=tuned[best], note=f"{model.note} at its best rate, {best:g}")


def errors_by_step(
    model: Trained, spec: SinusoidSpec, key: Array, tasks: int, steps: tuple[int, ...] = STEPS
) -> Float[Array, "tasks steps"]:
    """The squared error on each test task's queries after each number of ``steps``."""

    def errors(key: Array, params: Any, state: Any) -> Array:
        task_key, adapt_key = jax.random.split(key)
        episode = sample_task(task_key, spec)
        found = [predicted(model.learner, params, state, episode.support, episode.query, adapt_key, s) for s in steps]
        return jnp.stack([squared_error({"mean": mean}, episode.query) for mean in found])

    return jax.jit(jax.vmap(errors, (0, None, None)))(jax.random.split(key, tasks), model.params, model.state)


def predicted(
    learner: MetaLearner, params: Any, state: Any, support: Examples, query: Examples, key: Array, steps: int
) -> Float[Array, "n 1"]:
    """What the learner says of the queries after so many steps on the support set."""
    ctx = dataclasses.replace(learner.test_context, inner_steps=steps)
    return learner.predict(params, state, learner.adapt(params, state, support, key, ctx), query.inputs, ctx)["mean"]


def lines_of(model: Trained, support: Examples, query: Examples, steps: tuple[int, ...]) -> dict[int, Array]:
    """What the model says of the queries after each number of steps on the support set."""

    def lines(params: Any, state: Any) -> dict[int, Array]:
        key = jax.random.key(PICTURE)
        return {s: predicted(model.learner, params, state, support, query, key, s) for s in steps}

    return jax.jit(lines)(model.params, model.state)


def draw(
    path: Path, column: str, models: dict[tuple[str, str], Trained], errors: dict[tuple[str, str], dict[int, float]]
) -> None:
    """The figure: functions of one task before and after adapting, and errors by steps, for one number of points."""
    shot = SHOTS[column]
    key = jax.random.key(PICTURE)
    x = jnp.linspace(*INPUT, 200)[:, None]
    sinusoid = sample_sinusoid(jax.random.split(key, 3)[0])  # as sample_task does
    fits = []
    for row, title in (("maml", "MAML"), ("pretrained_on_all_tasks", "Pretrained on all tasks"), ("oracle", "Oracle")):
        if (row, column) not in models:
            continue
        model, told = models[row, column], row == "oracle"
        support = sample_task(key, SinusoidSpec(shot, 1, told)).support
        query = Examples(inputs_of(sinusoid, x, told), sinusoid(x))
        steps = (0,) if told else SHOWN
        fits.append(
            Fit(title, {s: np.asarray(line[:, 0]) for s, line in lines_of(model, support, query, steps).items()})
        )
    support = sample_task(key, SinusoidSpec(shot, 1)).support
    points = np.concatenate([np.asarray(support.inputs), np.asarray(support.label)], axis=1)
    shown = {row: found for (row, there), found in errors.items() if there == column}
    save_regression(path, np.asarray(x[:, 0]), np.asarray(sinusoid(x)[:, 0]), points, fits, shown)


if __name__ == "__main__":
    main()
