"""The table of supervised few-shot learning on Omniglot: every method under its paper's protocol.

    python -m experiments.tables.omniglot_supervised --plan                       # what there is to do, and how long
    python -m experiments.tables.omniglot_supervised --data.data-dir DIR             # about 6 hours on 2 CPU cores
    python -m experiments.tables.omniglot_supervised --methods maml --columns 5w1s --minutes 30
    python -m experiments.tables.omniglot_supervised --budget full                # the papers' lengths, on a GPU
    python -m experiments.tables.omniglot_supervised --merge runs/tables/omniglot_supervised OTHER_FOLDER

A cell is one training run and its test episodes, RUN_FOLDER/BUDGET/METHOD/COLUMN/result.json. Finished cells are
skipped and interrupted ones go on where they stopped, so that the same command may be given again and again, by several
processes at once, and on several machines. --merge needs no data: it takes the cells below the folders that follow,
adds them to experiments/results/cells, and draws the table and the pages anew.
"""

import dataclasses

from experiments.cli import command_line, console, errors_as_messages, parse
from experiments.readme import main as draw_readme
from experiments.tables.command import TableConfig, check_names, merge, plan_table, show
from experiments.tables.grid import Place, finished, run_grid
from experiments.tables.omniglot_methods import COLUMNS, GRID, METHODS, plan
from experiments.tables.omniglot_plan import Plan, trainings
from metarep_jax.data import DataConfig
from metarep_jax.train import use_cpu_devices

TABLE = "omniglot_supervised"
PROTOCOL = "Omniglot, supervised few-shot classification, each method under its paper's protocol (below)"


@dataclasses.dataclass(frozen=True)
class GridConfig(TableConfig):
    """Which cells, and where they are computed."""

    methods: tuple[str, ...] = GRID
    """Rows of the table. More on request: meta_curvature, imaml, newton_logistic, svm."""
    columns: tuple[str, ...] = COLUMNS
    """Columns of the table."""
    with_validation: bool = True
    """Prototypical Networks train on training and validation classes for a fixed number of steps, as their paper's last
    step does; otherwise on the training classes, and the best checkpoint on the validation classes counts."""
    data: DataConfig = DataConfig(name="omniglot")
    """Omniglot; another data set is taken under its own protocol, to try things out."""

    def __post_init__(self):
        super().__post_init__()
        check_names("methods", self.methods, METHODS)
        check_names("columns", self.columns, COLUMNS)

    def plans(self) -> list[Plan]:
        """The cells, in the table's order."""
        return [
            plan(row, column, self.budget, with_validation=self.with_validation)
            for row in self.methods
            for column in self.columns
        ]

    @property
    def place(self) -> Place:
        """Where and on what they are computed."""
        return Place(TABLE, self.folder(TABLE), self.data, self.seeds, self.devices, self.precision)


def show_plan(config: GridConfig) -> None:
    """Prints each cell with its estimates, in the order in which they are computed, and what is done already."""
    rows = []
    for group in trainings(config.plans()).values():
        for made in group:
            fit = made.meta.train
            minutes = made.test_minutes + (made.train_minutes if made is group[0] else 0.0)
            done = finished(made, config.place) is not None
            rows.append(
                (f"{made.row} {made.column}", made.protocol, f"{fit.steps:,} × {fit.batch_size}", minutes, done)
            )
    plan_table(rows, config.seeds)


def main(args: list[str] | None = None) -> None:
    """Plans, computes, or merges."""
    config = parse(GridConfig, __doc__, args=args)
    with errors_as_messages():
        if config.merge:
            merge(TABLE, config.folders, tuple(METHODS), protocol=PROTOCOL, data=["omniglot"])
            draw_readme()
            return
        if config.plan:
            show_plan(config)
            return
        use_cpu_devices(config.devices)
        complete = run_grid(config.plans(), config.place, config.minutes)
        done = [cell for made in config.plans() if (cell := finished(made, config.place)) is not None]
        command = command_line(f"experiments.tables.{TABLE}")
        show(TABLE, done, tuple(METHODS), config.place.folder / "table.json", command=command, protocol=PROTOCOL)
        if complete:
            console.print(
                f"all cells are there; python -m experiments.tables.{TABLE} --merge {config.place.folder.parent}"
            )


if __name__ == "__main__":
    main()
