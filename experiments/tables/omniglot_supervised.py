"""The table of supervised few-shot learning on Omniglot: every method under its paper's protocol.

    python -m experiments.tables.omniglot_supervised --plan                       # what there is to do, and how long
    python -m experiments.tables.omniglot_supervised --data.data-dir DIR             # about 8 hours on 2 CPU cores
    python -m experiments.tables.omniglot_supervised --methods maml --columns 5w1s --minutes 30
    python -m experiments.tables.omniglot_supervised --budget full                # the papers' lengths, on a GPU
    python -m experiments.tables.omniglot_supervised --merge runs/tables/omniglot_supervised OTHER_FOLDER

A cell is one training run and its test episodes, RUN_FOLDER/BUDGET/METHOD/COLUMN/result.json. Finished cells are
skipped and interrupted ones go on where they stopped, so that the same command may be given again and again, by several
processes at once, and on several machines. --merge needs no data: it takes the cells below the folders that follow,
adds them to experiments/results/cells, and draws the table and the README anew.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro
from rich import box
from rich.table import Table

from experiments.common import console, errors_told, parse
from experiments.readme import ROOT
from experiments.readme import main as draw_readme
from experiments.tables.cells import best_of, merged, read_cells
from experiments.tables.grid import Place, finished, run_grid
from experiments.tables.omniglot_methods import COLUMNS, GRID, METHODS, Budget, Plan, plan, trainings
from metarep_jax.data import DataConfig
from metarep_jax.report.results import write_result
from metarep_jax.report.tables import terminal_table
from metarep_jax.train import use_cpu_devices

TABLE = "omniglot_supervised"
RESULTS = ROOT / "experiments" / "results"
COUNTED = {("short", "omniglot"), ("full", "omniglot")}  # budgets and data of the table's cells
PROTOCOL = "Omniglot, supervised few-shot classification, each method under its paper's protocol (below)"


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """Which cells, and where they are computed."""

    budget: Budget = "short"
    """short: about 8 hours on 2 CPU cores. full: the papers' numbers of steps. trial: a few steps a cell."""
    methods: tuple[str, ...] = GRID
    """Rows of the table. More on request: meta_curvature, imaml, newton_logistic, svm."""
    columns: tuple[str, ...] = COLUMNS
    """Columns of the table."""
    seeds: int = 1
    """Training runs a cell, of seeds 0 to N-1."""
    minutes: float | None = None
    """Stop cleanly after so many minutes, in the middle of a cell if need be; the same command goes on from there."""
    with_validation: bool = True
    """Prototypical Networks train on training and validation classes for a fixed number of steps, as their paper's last
    step does; otherwise on the training classes, and the best checkpoint on the validation classes counts."""
    plan: bool = False
    """Print what there is to do, with estimates for 2 CPU cores, and do nothing."""
    merge: bool = False
    """Collect the finished cells of the folders given at the end, and draw the table."""
    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """With --merge: folders to search for cells."""
    data: DataConfig = DataConfig(name="omniglot")
    """Omniglot; another data set is taken under its own protocol, to try things out."""
    run_folder: Path = Path("runs") / "tables" / TABLE
    """Cells are written below it."""
    devices: int | None = None
    """Devices to use; default: as many as divide a step's tasks (on a CPU, one a core)."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Of the computation. The papers' numbers are of float32."""

    def __post_init__(self):
        for name, known in (("methods", METHODS), ("columns", COLUMNS)):
            if unknown := [word for word in getattr(self, name) if word not in known]:
                raise ValueError(f"unknown {name} {', '.join(unknown)}; there are: {', '.join(known)}")
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty; there are: {', '.join(known)}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")
        if self.folders and not self.merge:
            raise ValueError(f"folders go with --merge, got {', '.join(map(str, self.folders))}")

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
        return Place(TABLE, self.run_folder / self.budget, self.data, self.seeds, self.devices, self.precision)


def show_plan(config: GridConfig) -> None:
    """Prints each cell with its estimates, in the order in which they are computed, and what is done already."""
    table = Table(
        "cell", "protocol", "steps × tasks", "train, min", "test, min", "", box=box.SIMPLE_HEAD, padding=(0, 1)
    )
    table.columns[0].no_wrap = True
    total = left = 0.0
    for group in trainings(config.plans()).values():
        for made in group:
            first = made is group[0]
            minutes = config.seeds * (made.test_minutes + (made.train_minutes if first else 0.0))
            done = finished(made, config.place) is not None
            total, left = total + minutes, left + (0.0 if done else minutes)
            fit = made.meta.train
            table.add_row(
                f"{made.row} {made.column}",
                made.protocol,
                f"{fit.steps:,} × {fit.batch_size}",
                f"{made.train_minutes:.0f}" if first else "shared",
                f"{made.test_minutes:.1f}",
                "done" if done else "",
            )
    console.print(table)
    seeds = f", {config.seeds} seeds" if config.seeds > 1 else ""
    console.print(f"by estimate {total / 60:.1f} hours on 2 CPU cores{seeds}, {left / 60:.1f} of them still to be done")


def merge(folders: tuple[Path, ...], results: Path = RESULTS) -> None:
    """Adds the finished cells below ``folders`` to those in ``results``, and draws the table of them all."""
    kept = results / "cells" / TABLE
    cells = read_cells(TABLE, folders) + (read_cells(TABLE, [kept]) if kept.is_dir() else [])
    cells = [
        cell for cell in cells if cell.config["budget"] != "trial" and cell.config["settings"]["data"] == "omniglot"
    ]
    command = f"python -m experiments.tables.{TABLE} --merge"
    result = merged(TABLE, cells, tuple(METHODS), command=command, protocol=PROTOCOL)
    for (row, column), cell in best_of(cells).items():
        write_result(kept / f"{row}_{column}.json", cell)
    write_result(results / f"{TABLE}.json", result)
    console.print(terminal_table(result))
    console.print(f"{len(best_of(cells))} cells: {results / TABLE}.json")


def main(args: list[str] | None = None) -> None:
    """Plans, computes, or merges."""
    config = parse(GridConfig, __doc__, args=args)
    with errors_told():
        if config.merge:
            merge(config.folders)
            draw_readme()
            return
        if config.plan:
            show_plan(config)
            return
        use_cpu_devices(config.devices)
        complete = run_grid(config.plans(), config.place, config.minutes)
        done = [cell for made in config.plans() if (cell := finished(made, config.place)) is not None]
        if done:
            table = merged(TABLE, done, tuple(METHODS), command=done[0].command, protocol=PROTOCOL)
            write_result(config.place.folder / "table.json", table)
            console.print(terminal_table(table))
        if complete:
            console.print(f"all cells are there; python -m experiments.tables.{TABLE} --merge {config.run_folder}")


if __name__ == "__main__":
    main()
