"""The table of supervised few-shot learning on Omniglot: every method under its paper's protocol.

    python -m experiments.tables.omniglot_supervised --plan                       # what there is to do, and how long
    python -m experiments.tables.omniglot_supervised --data.data-dir DIR             # about 6 hours on 2 CPU cores
    python -m experiments.tables.omniglot_supervised --rows maml --columns 5w1s --minutes 30
    python -m experiments.tables.omniglot_supervised --budget full                # the papers' lengths, on a GPU
    python -m experiments.tables.omniglot_supervised --merge runs/tables/omniglot_supervised OTHER_FOLDER

A piece is one cell: a training run, which some cells share, and its test episodes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from experiments.tables.engine import Budget, OmniglotConfig, Table, check_names, table_main
from experiments.tables.omniglot_methods import COLUMNS, SHARED, SHORT, gradient_method, reptile, shared_method
from experiments.tables.omniglot_plan import Plan, as_trial, settings_of_training, trainings, way_and_shot
from metarep_jax.data import Splits, with_validation_classes
from metarep_jax.model import Model
from metarep_jax.report.pieces import Judged, Piece, each_seed
from metarep_jax.stages import metatrain
from metarep_jax.stages.evaluate import few_shot_columns

GRID = (
    "maml", "first_order_maml", "anil", "boil", "meta_sgd", "maml_pp", "reptile", "reptile_transductive",
    "prototypical", "matching", "matching_full_context", "relation", "ridge",
)  # fmt: skip
MORE = ("meta_curvature", "imaml", "newton_logistic", "svm")  # on request
METHODS: dict[str, Callable[[str, int, int, Budget], Plan]] = {
    **dict.fromkeys(SHORT, gradient_method),
    "reptile": reptile,
    "reptile_transductive": reptile,
    **dict.fromkeys(SHARED, shared_method),
}
TABLE = Table(
    "omniglot_supervised",
    "Omniglot, supervised few-shot classification, each method under its paper's protocol (below)",
    tuple(METHODS),
    ("omniglot",),
    usual=GRID,
)


@dataclasses.dataclass(frozen=True)
class SupervisedConfig(OmniglotConfig):
    """Flags of experiments.tables.omniglot_supervised."""

    columns: tuple[str, ...] = COLUMNS
    """Columns of the table."""
    with_validation: bool = True
    """Prototypical Networks train on training and validation classes for a fixed number of steps, as their paper's last
    step does; otherwise on the training classes, and the best checkpoint on the validation classes counts."""

    def __post_init__(self):
        super().__post_init__()
        check_names("columns", self.columns, COLUMNS)


def plan(row: str, column: str, budget: Budget, *, with_validation: bool = True) -> Plan:
    """The plan of a cell.

    Args:
      row, column: of the table.
      budget: "full" as in the papers, "short", or "trial" (a few steps: only to try whether all works).
      with_validation: Prototypical Networks train on the validation classes too, as the paper's last step does.
    """
    way, shot = way_and_shot(column)
    cell = METHODS[row](row, way, shot, "short" if budget == "trial" else budget)
    if cell.with_validation and not with_validation:
        spec = dataclasses.replace(cell.test, way=20)
        cell = dataclasses.replace(cell, with_validation=False, validate_on=spec, training=f"{cell.training}-selected")
    cell = dataclasses.replace(cell, budget=budget)
    return as_trial(cell) if budget == "trial" else cell


def pieces_of(config: SupervisedConfig) -> list[Piece]:
    """The cells of the config's rows, the cheapest training first."""
    rows = config.rows or TABLE.usual
    plans = [
        plan(row, column, config.budget, with_validation=config.with_validation)
        for row in rows
        for column in config.columns
    ]
    groups = trainings(plans).values()
    return [piece_of(cell, config, first=cell is group[0]) for group in groups for cell in group]


def piece_of(cell: Plan, config: SupervisedConfig, *, first: bool = True) -> Piece:
    """A cell as a piece; the time of a training counts to the ``first`` of the cells that share it."""
    fit, episodes = cell.meta.train, config.episodes or cell.episodes
    data = {"data": config.data.name, "split_seed": config.data.split_seed, "precision": config.precision}
    test = {"test": cell.test, "episodes": episodes, "norm": cell.norm}

    def splits() -> Splits:
        return config.splits(cell.protocol)

    return Piece(
        cell.row,
        (cell.column,),
        cell.protocol,
        settings={"steps": fit.steps, "training": settings_of_training(cell), **test, **data},
        train=partial(train, cell, splits, config),
        judge=each_seed(partial(judge, cell, splits, config, episodes)),
        steps=fit.steps,
        minutes=cell.test_minutes + (cell.train_minutes if first else 0.0),
        training=cell.training,
        shown={"protocol": cell.protocol, "tasks": fit.batch_size, "note": cell.note},
        check=splits,
    )


def train(cell: Plan, splits: Callable[[], Splits], config: SupervisedConfig, folder: Path, seed: int) -> Model:
    """The model of one training run, of this process or of one before."""
    data, spec = splits(), cell.validate_on
    return metatrain(
        cell.meta,
        with_validation_classes(data) if cell.with_validation else data,
        config.compute(folder, seed, cell.meta.train.batch_size),
        encoder=cell.encoder,
        validate_on=spec and dataclasses.replace(spec, rotations=data.protocol.test_rotations),
        what=f"{cell.training}, seed {seed}",
    )


def judge(
    cell: Plan, splits: Callable[[], Splits], config: SupervisedConfig, episodes: int, model: Model, seed: int
) -> Judged:
    """Accuracy on the test classes, and whose statistics batch norm used."""
    data = splits()
    spec = dataclasses.replace(cell.test, rotations=data.protocol.test_rotations)
    norm = cell.norm or data.protocol.norm or model.learner(spec.way).test_context.norm
    compute = config.compute(config.folder(TABLE.name), seed, cell.meta.train.batch_size)
    columns = few_shot_columns(model, data, [spec], compute, episodes=episodes, mode=norm)
    return Judged({cell.column: columns[spec.name]}, {"norm": norm.replace("_", " ")})


main = partial(table_main, TABLE, SupervisedConfig, pieces_of, __doc__)

if __name__ == "__main__":
    main()
