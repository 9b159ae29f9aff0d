"""What the tables' command lines share: their flags, the list of what there is to do, and merging."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from rich import box
from rich.table import Table

from experiments.cli import console
from experiments.readme import ROOT
from experiments.tables.cells import best_of, merged, read_cells
from metarep_jax.report.results import Result, write_result
from metarep_jax.report.tables import terminal_table

Budget = Literal["trial", "short", "full"]
RESULTS = ROOT / "experiments" / "results"


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Flags of every table that is computed piece by piece."""

    budget: Budget = "short"
    """short: for 2 CPU cores. full: as long as the papers train, for a GPU. trial: a few steps, to try whether all
    works."""
    seeds: int = 1
    """Training runs a row, of seeds 0 to N-1."""
    minutes: float | None = None
    """Stop cleanly after so many minutes, in the middle of a training run if need be; the same command goes on from
    there."""
    plan: bool = False
    """Print what there is to do, with estimates for 2 CPU cores, and do nothing."""
    merge: bool = False
    """Collect the finished cells of the folders given at the end, and draw the table."""
    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """With --merge: folders to search for cells."""
    run_folder: Path | None = None
    """Cells are written below it; default: runs/tables/TABLE."""
    devices: int | None = None
    """Devices to use; default: all that divide a step's work (on a CPU, one a core)."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Of the computation. The papers' numbers are of float32."""

    def __post_init__(self):
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")
        if self.folders and not self.merge:
            raise ValueError(f"folders go with --merge, got {', '.join(map(str, self.folders))}")

    def folder(self, table: str) -> Path:
        """The budget's."""
        return (self.run_folder or Path("runs") / "tables" / table) / self.budget


def check_names(what: str, given: Sequence[str], known: Collection[str]) -> None:
    """Refuses names that are not there.

    Raises:
      ValueError: where ``given`` is empty or has a name that is not ``known``.
    """
    if unknown := [word for word in given if word not in known]:
        raise ValueError(f"unknown {what} {', '.join(unknown)}; there are: {', '.join(known)}")
    if not given:
        raise ValueError(f"{what} must not be empty; there are: {', '.join(known)}")


def plan_table(rows: Sequence[tuple[str, str, str, float, bool]], seeds: int) -> None:
    """Prints name, protocol, steps, minutes for 2 CPU cores, and what is done, of each piece; then the hours."""
    table = Table("", "protocol", "steps", "minutes", "", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.columns[0].no_wrap = True
    for name, protocol, steps, minutes, done in rows:
        table.add_row(name, protocol, steps, f"{minutes:.1f}", "done" if done else "")
    console.print(table)
    total = seeds * sum(minutes for *_, minutes, _ in rows) / 60
    left = seeds * sum(minutes for *_, minutes, done in rows if not done) / 60
    many = f", {seeds} seeds" if seeds > 1 else ""
    console.print(f"by estimate {total:.1f} hours on 2 CPU cores{many}, {left:.1f} of them still to be done")


def merge(
    table: str,
    folders: Sequence[Path],
    order: Sequence[str],
    *,
    protocol: str,
    data: Collection[str],
    results: Path = RESULTS,
) -> Result:
    """Adds the finished cells below ``folders`` to those in ``results``, and writes the table of them all.

    Args:
      table: its name.
      folders: of cells from any machines.
      order: the rows'.
      protocol: of the whole table, in words.
      data: names of the data sets whose cells count; those of trials never do.
      results: the folder of result files.
    """
    kept = results / "cells" / table

    def those_that_count(folders: Sequence[Path]) -> list[Result]:
        found = read_cells(table, folders)
        return [
            cell for cell in found if cell.config["budget"] != "trial" and cell.config["settings"].get("data") in data
        ]

    best = best_of(those_that_count(folders), those_that_count([kept]) if kept.is_dir() else [])
    command = f"python -m experiments.tables.{table} --merge"
    result = merged(table, best.values(), order, command=command, protocol=protocol)
    for (row, column), cell in best.items():
        write_result(kept / f"{row}_{column}.json", cell)
    write_result(results / f"{table}.json", result)
    console.print(terminal_table(result))
    console.print(f"{len(best)} cells: {results / table}.json")
    return result


def show(table: str, cells: Sequence[Result], order: Sequence[str], path: Path, **told: Any) -> None:
    """Writes and prints the table of what is finished so far; nothing where that is nothing."""
    if cells:
        result = merged(table, cells, order, **told)
        write_result(path, result)
        console.print(terminal_table(result))
