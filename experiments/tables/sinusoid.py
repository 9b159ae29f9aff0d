"""The table of sinusoid regression: mean squared error after one step on 5 or 10 points, and a figure.

    python -m experiments.tables.sinusoid                        # fewer steps than the papers
    python -m experiments.tables.sinusoid --budget full          # the papers' numbers of steps
    python -m experiments.tables.sinusoid --rows maml cavia ridge
    python -m experiments.tables.sinusoid --merge runs/tables/sinusoid

Rows: MAML, first-order MAML, Meta-SGD; beside them ``pretrained_on_all_tasks``, one network trained on all tasks at
once and then fine-tuned at the rate that suits it best, and ``oracle``, a network that is told amplitude and phase. A
learner is trained and judged with the same number of points. Once all is there, a figure shows functions before and
after adapting, and errors by steps.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments.tables.engine import Table, TableConfig, check_names, table_main
from experiments.tables.published import COLUMNS
from metarep_jax.data.tasks.sinusoid_tasks import SinusoidSpec
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate import interval
from metarep_jax.evaluate.regression import Regressor
from metarep_jax.metalearn import LEARNERS
from metarep_jax.metalearn.maml import maml
from metarep_jax.report.figures.regression import Fit, save_regression
from metarep_jax.report.pieces import Judged, Piece, each_seed
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.regression import (
    QUERIES,
    RegressionSettings,
    choose_rate,
    errors_at_test,
    functions_of_one_task,
    one_task,
    train_regressor,
)
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import MetaLearner

TABLE = "sinusoid"
SHOTS = {column: int(column.removesuffix("shot")) for column in COLUMNS[TABLE]}
ENCODER = MLP(widths=(40, 40), norm="none")  # Finn et al. 2017, section 5.1
MAML: Any = partial(maml, ENCODER, way=1, output="mean")
STEPS = (0, 1, 2, 3, 5, 10)  # after which errors are measured
SHOWN = (0, 1, 5, 10)  # after which the figure shows functions
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # among which the pretrained network's is chosen
TITLES = {"maml": "MAML", "pretrained_on_all_tasks": "Pretrained on all tasks", "oracle": "Oracle"}  # of the figure
MS = 0.35  # of a training step on two CPU cores; an estimate
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


USUAL = ("maml", "first_order_maml", "meta_sgd", "pretrained_on_all_tasks", "oracle")


def methods(names: Sequence[str]) -> dict[str, Method]:
    """The rows, by name: those of the paper, the two baselines, and any learner that takes regression.

    Raises:
      ValueError: for a learner that does not.
    """
    steps = {"trial": 20, "short": 8_000, "full": 70_000}
    plain = partial(MAML, inner_lr=0.01, test_steps=1)
    meta_sgd, fewer = LEARNERS["meta_sgd"](ENCODER, way=1, output="mean"), {"short": 12_000, "full": 60_000}
    unadapted = plain(inner_steps=0)
    known = {
        "maml": Method(plain(), steps, 25, "α = 0.01"),
        "first_order_maml": Method(plain(order=1), steps, 25, "α = 0.01"),
        "meta_sgd": Method(meta_sgd, steps | fewer, 4, "α learned from 0.005–0.1"),
        USUAL[3]: Method(unadapted, steps, 25, "one network for all tasks, fine-tuned", by_shot=False, rates=RATES),
        USUAL[4]: Method(
            unadapted, steps, 25, "told amplitude and phase, not adapted", told=True, by_shot=False, adapts=False
        ),
    }

    def own(name: str) -> Method:
        try:
            return Method(LEARNERS[name](ENCODER, way=1, output="mean"), steps, 25, "its own default settings")
        except TypeError as error:
            raise ValueError(f"{name} does not take regression tasks: {error}") from error

    return {name: known.get(name) or own(name) for name in names}


@dataclasses.dataclass(frozen=True)
class SinusoidConfig(TableConfig):
    """Flags of experiments.tables.sinusoid. Rows may be any learner of metarep_jax.metalearn that takes regression."""

    columns: tuple[str, ...] = tuple(SHOTS)
    """Columns: 5shot, 10shot."""
    test_tasks: int = 2000
    """Tasks that each number is the mean of."""

    def __post_init__(self):
        super().__post_init__()
        check_names("columns", self.columns, SHOTS)
        if self.test_tasks < 1:
            raise ValueError(f"--test-tasks must be at least 1, got {self.test_tasks}")

    @property
    def shown_rows(self) -> tuple[str, ...]:
        """Those that are computed."""
        return self.rows or USUAL


def pieces_of(config: SinusoidConfig) -> list[Piece]:
    """A cell a piece."""
    pieces = []
    for row, method in methods(config.shown_rows).items():
        for column in config.columns:
            shot, steps = SHOTS[column], method.steps[config.budget]
            first = method.by_shot or column == config.columns[0]
            points = shot if method.by_shot else max(SHOTS.values())
            pieces.append(
                Piece(
                    row,
                    (column,),
                    f"{PROTOCOL}; {shot} points to adapt on, {QUERIES} to be judged on",
                    settings={
                        "data": TABLE,
                        "steps": steps,
                        "tasks": method.tasks,
                        "test_tasks": config.test_tasks,
                    },
                    train=partial(train, config, row, method, points),
                    judge=each_seed(partial(judge, config, method, column)),
                    steps=steps,
                    minutes=0.2 + steps * MS / 60_000 if first else 0.2,
                    training=f"{row}/{f'{points}-shot' if method.by_shot else 'all'}",
                    shown={
                        "protocol": "Finn et al. 2017, section 5.1",
                        "norm": "none",
                        "tasks": method.tasks,
                        "note": method.note,
                    },
                )
            )
    return pieces


def train(config: SinusoidConfig, row: str, method: Method, points: int, folder: Path, seed: int) -> Regressor:
    """A row trained on tasks of so many points."""
    spec, steps = SinusoidSpec(points, points, method.told), method.steps[config.budget]
    settings = RegressionSettings(
        spec,
        OptimiserConfig(name="adam", learning_rate=1e-3, schedule="cosine"),
        FitConfig(
            steps=steps, batch_size=method.tasks, log_every=max(steps // 20, 1),
            checkpoint_every=max(steps // 4, 1), steps_per_dispatch=500, tensorboard=False,
        ),
    )  # fmt: skip
    identity = {"row": row, "budget": config.budget, "tasks": method.tasks, "spec": dataclasses.asdict(spec)}
    compute = Compute(folder, seed, devices=1)  # the network is too small to share
    return train_regressor(method.learner, settings, compute, identity=identity, what=f"{row}, {points} points")


def judge(config: SinusoidConfig, method: Method, column: str, model: Regressor, seed: int) -> Judged:
    """The error after one step, or of what is not adapted at once."""
    del seed
    model, note = with_best_rate(model, method, SHOTS[column])
    steps = (1 if method.adapts else 0,)
    values = errors_at_test(model, SHOTS[column], steps, tasks=config.test_tasks, told=method.told)
    return Judged({column: interval(values[:, 0])}, {"note": note})


def with_best_rate(model: Regressor, method: Method, shot: int) -> tuple[Regressor, str]:
    """The model fine-tuned at its best rate, and its note; one that was trained to adapt stays as it is."""
    if not method.rates:
        return model, method.note
    model, best = choose_rate(model, lambda rate: MAML(inner_lr=rate), method.rates, shot)
    return model, f"{method.note} at its best rate, {best:g}"


def draw(config: SinusoidConfig, folder: Path) -> list[Path]:
    """The figure: functions of one task before and after adapting, and errors by steps, for one number of points."""
    column = config.columns[0]
    shot, fits, errors = SHOTS[column], [], {}
    all_methods = methods(config.shown_rows)
    for piece in pieces_of(dataclasses.replace(config, columns=(column,))):
        row, method = piece.row, all_methods[piece.row]
        model, _ = with_best_rate(piece.train(folder / piece.training / "seed0", 0), method, shot)
        steps, shown = (STEPS, SHOWN) if method.adapts else ((0,), (0,))
        values = errors_at_test(model, shot, steps, tasks=config.test_tasks, told=method.told)
        errors[row] = dict(zip(steps, values.mean(0).tolist()))
        if row in TITLES:
            fits.append(Fit(TITLES[row], functions_of_one_task(model, shot, shown, told=method.told)))
    path = folder / "figures" / "adaptation.png"
    save_regression(path, *one_task(shot), fits, errors)
    return [path]


OTHERS = tuple(name for name in LEARNERS if name not in USUAL)
main = partial(
    table_main,
    Table(TABLE, PROTOCOL, USUAL + OTHERS, (TABLE,), usual=USUAL, pictures=draw),
    SinusoidConfig,
    pieces_of,
    __doc__,
)

if __name__ == "__main__":
    main()
