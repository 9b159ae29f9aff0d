"""The engine of all tables: cells come piece by piece, in any order, by several processes and on several machines.

A piece is a training run a seed, and the cells that it gives: RUN_FOLDER/BUDGET/ROW/COLUMN/result.json. Finished pieces
are skipped and interrupted ones go on where they stopped, so that the same command may be given again and again.
``--merge`` needs no data: it takes the cells below the folders that follow, adds them to experiments/results/cells, and
draws the table and the pages anew.
"""

import dataclasses
import shutil
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import tyro
from rich import box
from rich.table import Table as RichTable

from experiments.cli import command_line, console, errors_as_messages, read_data
from experiments.readme import ROOT
from experiments.readme import main as draw_readme
from experiments.tables.jobs import Job, run_jobs
from experiments.tables.published import COLUMNS, published
from metarep_jax.data import DataConfig, Splits
from metarep_jax.report.cells import best_of, cell_line, merged, read_cells
from metarep_jax.report.migrate import migrated_settings
from metarep_jax.report.pieces import Piece, finished, is_finished, run_piece
from metarep_jax.report.results import Cells, Result, write_result
from metarep_jax.report.tables import terminal_table
from metarep_jax.stages import Compute
from metarep_jax.train import dividing_devices, local_devices, use_cpu_devices

Budget = Literal["trial", "short", "full"]
RESULTS = ROOT / "experiments" / "results"


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Flags of every table."""

    budget: Budget = "short"
    """short: for 2 CPU cores. full: as long as the papers train, for a GPU. trial: a few steps, to try whether all
    works."""
    rows: tuple[str, ...] = ()
    """Which rows; default: the table's own."""
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
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"--minutes must be positive, got {self.minutes}")
        if self.folders and not self.merge:
            raise ValueError(f"folders go with --merge, got {', '.join(map(str, self.folders))}")

    def folder(self, table: str) -> Path:
        """The budget's."""
        return (self.run_folder or Path("runs") / "tables" / table) / self.budget

    def compute(self, folder: Path, seed: int, batch: int) -> Compute:
        """What a stage takes: as many devices as divide the ``batch``."""
        return Compute(folder, seed, len(dividing_devices(local_devices(self.devices), batch)), self.precision)


@dataclasses.dataclass(frozen=True)
class OmniglotConfig(TableConfig):
    """Flags of a table on Omniglot."""

    data: DataConfig = DataConfig(name="omniglot")
    """Omniglot; another data set of images is taken under its own protocol, to try things out."""
    episodes: int | None = None
    """Test episodes a column; default: the protocol's (2,000)."""

    def splits(self, protocol: str) -> Splits:
        """The data under a protocol of Omniglot's, or, of another data set, under its own."""
        own = protocol if self.data.name == "omniglot" else self.data.protocol
        return read_once(dataclasses.replace(self.data, protocol=own))


read_once = lru_cache(maxsize=8)(read_data)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its rows in order, and what becomes of it."""

    name: str
    protocol: str
    order: tuple[str, ...]
    data: tuple[str, ...]  # names of the data sets whose cells count
    usual: tuple[str, ...] = ()  # rows that are computed unless others are named; default: all
    figure: Callable[[Path, Cells], None] | None = None  # draws the merged cells
    pictures: Callable[[Path], Sequence[Path]] | None = None  # drawn from what was trained, once all is there


def run_table(table: Table, config: TableConfig, pieces: Callable[[], Sequence[Piece]]) -> None:
    """Plans, computes, or merges; ``pieces`` are all of the config's, in the order in which they are computed."""
    with errors_as_messages():
        rows = config.rows or table.usual or table.order
        check_names("rows", rows, table.order)
        if config.merge:
            result = merge(table, config.folders)
            if table.figure is not None:
                table.figure(RESULTS / "figures" / f"{table.name}.png", result.cells)
            for budget in ("short", "full"):  # the longer one's pictures stay
                pictures = (each for place in config.folders for each in place.rglob(f"{budget}/figures/*.png"))
                for path in sorted(pictures):
                    shutil.copyfile(path, RESULTS / "figures" / f"{table.name}_{path.name}")
            draw_readme()
            return
        folder = config.folder(table.name)
        if not config.plan:
            use_cpu_devices(config.devices)
        wanted = [piece for piece in pieces() if piece.row in rows]
        if config.plan:
            show_plan(wanted, folder, config.seeds)
            return
        complete = compute_pieces(table.name, wanted, folder, config)
        done = [cell for piece in wanted for cell in finished(piece, folder, config.seeds)]
        if done:
            command = command_line(f"experiments.tables.{table.name}")
            result = merged_table(table, done, command)
            write_result(folder / "table.json", result)
            console.print(terminal_table(result))
        if complete:
            for path in table.pictures(folder) if table.pictures else ():
                console.print(f"figure: {path}")
            again = f"python -m experiments.tables.{table.name} --merge {folder.parent}"
            console.print(f"all of it is there; {again}", soft_wrap=True)


def check_names(what: str, given: Sequence[str], known: Collection[str]) -> None:
    """Refuses names that are not there.

    Raises:
      ValueError: where ``given`` is empty or has a name that is not ``known``.
    """
    if unknown := [word for word in given if word not in known]:
        raise ValueError(f"unknown {what} {', '.join(unknown)}; there are: {', '.join(known)}")
    if not given:
        raise ValueError(f"--{what} must not be empty; there are: {', '.join(known)}")


def show_plan(pieces: Sequence[Piece], folder: Path, seeds: int) -> None:
    """Prints protocol, steps, minutes for 2 CPU cores, and what is done, of each piece; then the hours."""
    shown = RichTable("", "protocol", "steps", "minutes", "", box=box.SIMPLE_HEAD, padding=(0, 1))
    shown.columns[0].no_wrap = True
    left = 0.0
    for piece in pieces:
        done = is_finished(piece, folder, seeds)
        left += 0.0 if done else piece.minutes
        protocol = piece.shown.get("protocol", piece.protocol)
        shown.add_row(piece.name, protocol, f"{piece.steps:,}", f"{piece.minutes:.1f}", "done" if done else "")
    console.print(shown)
    total, many = sum(piece.minutes for piece in pieces), f", {seeds} seeds" if seeds > 1 else ""
    hours = f"by estimate {seeds * total / 60:.1f} hours on 2 CPU cores{many}"
    console.print(f"{hours}, {seeds * left / 60:.1f} of them still to be done")


def compute_pieces(table: str, pieces: Sequence[Piece], folder: Path, config: TableConfig) -> bool:
    """Computes the pieces that are not finished, in their order. Returns whether all are finished then.

    Stops, fails and goes on as ``run_jobs`` does.

    Raises:
      ValueError, FileNotFoundError: where data are missing, before anything is trained.
    """
    for piece in pieces:
        if not is_finished(piece, folder, config.seeds):
            piece.check()

    command = command_line(f"experiments.tables.{table}")
    how: Any = {"seeds": config.seeds, "budget": config.budget, "command": command}

    def job(piece: Piece) -> Job:
        def work() -> str:
            cells = run_piece(table, piece, folder, **how, published=published)
            return "; ".join(map(cell_line, cells))

        return Job(piece.name, work, lambda: is_finished(piece, folder, config.seeds))

    return run_jobs([job(piece) for piece in pieces], config.minutes)


def merged_table(table: Table, cells: Sequence[Result], command: str) -> Result:
    """The table of a number of cells."""
    return merged(table.name, cells, table.order, COLUMNS[table.name], command=command, protocol=table.protocol)


def merge(table: Table, folders: Sequence[Path], results: Path = RESULTS) -> Result:
    """Adds the finished cells below ``folders`` to those in ``results``, and writes the table of them all."""
    kept = results / "cells" / table.name

    def those_that_count(folders: Sequence[Path]) -> list[Result]:
        cells = read_cells(table.name, folders)
        return [c for c in cells if c.config["budget"] != "trial" and migrated_settings(c).get("data") in table.data]

    best = best_of(those_that_count(folders), those_that_count([kept]) if kept.is_dir() else [])
    result = merged_table(table, list(best.values()), f"python -m experiments.tables.{table.name} --merge")
    for (row, column), cell in best.items():
        write_result(kept / f"{row}_{column}.json", cell)
    write_result(results / f"{table.name}.json", result)
    console.print(terminal_table(result))
    console.print(f"{len(best)} cells: {results / table.name}.json")
    return result
