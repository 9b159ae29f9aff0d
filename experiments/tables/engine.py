"""The engine of all tables: cells come piece by piece, in any order, by several processes and on several machines.

A piece is a training run a seed, and the cells that it gives: RUN_FOLDER/BUDGET/ROW/COLUMN/result.json. Finished pieces
are skipped and interrupted ones go on where they stopped, so that the same command may be given again and again.
``--merge`` needs no data: it takes the cells below the folders that follow, adds them to experiments/results/cells, and
draws the table and the README anew.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro
from rich import box
from rich.table import Table as RichTable

from experiments.cli import command_line, console, errors_as_messages, read_data
from experiments.readme import ROOT
from experiments.readme import main as draw_readme
from experiments.tables.jobs import Job, run_jobs
from experiments.tables.migrate import migrated_settings
from experiments.tables.published import COLUMNS, published
from metarep_jax.data import DataConfig, Splits
from metarep_jax.evaluate import Interval, interval_over_seeds
from metarep_jax.files import atomic_write
from metarep_jax.report.cells import best_of, cell_line, cell_result, device_name, merged, read_cells
from metarep_jax.report.provenance import device_of_run
from metarep_jax.report.results import Cells, Result, read_result, write_result
from metarep_jax.report.tables import terminal_table
from metarep_jax.stages import Compute
from metarep_jax.train import dividing_devices, local_devices, use_cpu_devices
from metarep_jax.train.storage import wall_clock

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


class Judged(NamedTuple):
    """The columns of one seed, and what the table's settings tell beside what was known before."""

    columns: Mapping[str, Interval]
    shown: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Piece:
    """A training run a seed, and the cells that it gives."""

    row: str
    columns: tuple[str, ...]
    protocol: str
    settings: Mapping[str, Any]  # all that its numbers depend on, its "data" by name among them
    train: Callable[[Path, int], Any]  # (folder of a seed, seed) -> what was trained; goes on where it stopped
    judge: Callable[[Sequence[Any]], Sequence[Judged]]  # what was trained, by seed -> what came out
    steps: int
    minutes: float  # estimate for two CPU cores
    version: int = 1  # of the definition: changed where the same settings give other numbers
    training: str = ""  # names its folder; those that share one train alike, and its time counts once
    shown: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what the table's settings tell
    combine: Callable[[Sequence[Interval]], Interval] = interval_over_seeds  # the seeds' intervals into one
    check: Callable[[], Any] = lambda: None  # raises for data that are missing, before anything is trained

    @property
    def name(self) -> str:
        """The row, and the column where it gives but one."""
        return f"{self.row} {self.columns[0]}" if len(self.columns) == 1 else self.row

    def cell(self, folder: Path, column: str) -> Path:
        """A cell's file below the folder of the budget."""
        return folder / self.row / column / "result.json"


def each_seed(judge: Callable[[Any, int], Judged]) -> Callable[[Sequence[Any]], Sequence[Judged]]:
    """Seeds judged one by one: ``judge`` takes what was trained and the seed."""
    return lambda trained: [judge(one, seed) for seed, one in enumerate(trained)]


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

    def job(piece: Piece) -> Job:
        def work() -> str:
            return "; ".join(cell_line(cell) for cell in run_piece(table, piece, folder, config))

        return Job(piece.name, work, lambda: is_finished(piece, folder, config.seeds))

    return run_jobs([job(piece) for piece in pieces], config.minutes)


def run_piece(table: str, piece: Piece, folder: Path, config: TableConfig) -> list[Result]:
    """Trains (or finds the training done) and judges a piece, for each seed, and writes a file a cell."""
    training, trained = piece.training or piece.row, []
    places = [folder / training / f"seed{seed}" for seed in range(config.seeds)]
    for seed, place in enumerate(places):
        claim(place, piece)
        with wall_clock.counted(place, device_name(device_of_run()), piece.steps):
            trained.append(piece.train(place, seed))
    begun = time.perf_counter()
    with console.status(f"judging {piece.name}"):
        judged = piece.judge(trained)
    share = (time.perf_counter() - begun) / len(piece.columns)
    devices = dict.fromkeys(device for place in places for device in wall_clock.devices_used(place))
    cells = []
    for column in piece.columns:
        intervals = [one.columns[column] for one in judged]
        cell = cell_result(
            table,
            piece.row,
            column,
            piece.combine(intervals),
            budget=config.budget,
            command=command_line(f"experiments.tables.{table}"),
            protocol=piece.protocol,
            seeds=list(range(config.seeds)),
            settings=plain(piece.settings),
            shown={
                "steps": f"{piece.steps:,}",
                "device": ", ".join(devices),
                **piece.shown,
                **judged[0].shown,
                "seed_means": [round(one.mean, 4) for one in intervals],
            },
            training=training,
            train_s=sum(map(wall_clock.seconds_spent, places)),
            evaluate_s=share,
            version=piece.version,
            beside=published(table, piece.row, column),
        )
        write_result(piece.cell(folder, column), cell)
        cells.append(cell)
    return cells


def claim(place: Path, piece: Piece) -> None:
    """Makes the folder of a training, or finds that of the same length and definition.

    Raises:
      ValueError: for another one, since to go on with that gives other numbers than a training from the start.
    """
    file, now = place / "piece.json", {"steps": piece.steps, "version": piece.version}
    before = json.loads(file.read_text()) if file.is_file() else now
    if differing := [
        f"{name}: {before.get(name)} before, {now[name]} now" for name in now if before.get(name) != now[name]
    ]:
        raise ValueError(f"{place} belongs to another config ({'; '.join(differing)}); give another --run-folder")
    atomic_write(file, json.dumps(now) + "\n")


def finished(piece: Piece, folder: Path, seeds: int) -> list[Result]:
    """The piece's cells that were computed by its settings and definition, with at least so many seeds."""
    files = [file for column in piece.columns if (file := piece.cell(folder, column)).is_file()]
    return [cell for cell in map(read_result, files) if same_identity(cell, piece) and len(cell.seeds) >= seeds]


def is_finished(piece: Piece, folder: Path, seeds: int) -> bool:
    """Whether all cells of a piece are there."""
    return len(finished(piece, folder, seeds)) == len(piece.columns)


def same_identity(cell: Result, piece: Piece) -> bool:
    """Whether a cell was computed by the settings and the definition of a piece."""
    version = cell.config.get("version", 1)
    return version == piece.version and migrated_settings(cell) == plain(piece.settings)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON holds them."""
    return json.loads(json.dumps(settings, default=str))


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
