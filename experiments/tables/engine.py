"""The engine of all tables: cells come piece by piece, in any order, by several processes and on several machines.

A piece is a training run a seed, and the cells that it gives: RUN_FOLDER/BUDGET/ROW/COLUMN/result.json. Finished pieces
are skipped and interrupted ones go on where they stopped, so that the same command may be given again and again.
``--merge`` needs no data: it takes the cells below the folders that follow, adds them to experiments/results/cells, and
draws the table and the pages anew.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.cli import (
    command_line,
    console,
    errors_as_messages,
    parse,
    print_error,
    read_data,
    set_up_compilation,
)
from experiments.readme import ROOT
from experiments.readme import main as draw_readme
from experiments.tables.published import COLUMNS, published
from metarep_jax.data import DataConfig, Splits
from metarep_jax.report.cells import cell_line, merged
from metarep_jax.report.jobs import Job, run_jobs
from metarep_jax.report.merge import add_cells, copy_pictures
from metarep_jax.report.pieces import Piece, finished, is_finished, run_piece
from metarep_jax.report.plan import plan_table
from metarep_jax.report.results import Cells, Result, write_result
from metarep_jax.report.tables import terminal_table
from metarep_jax.stages import Compute
from metarep_jax.train import dividing_devices, local_devices

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

    def settings(self, steps: int, **own: Any) -> dict[str, Any]:
        """A piece's own settings, and those of every piece."""
        every = {"budget": self.budget, "data": self.data.name, "episodes": self.episodes, "precision": self.precision}
        return {**every, "steps": steps, **own}

    def splits(self, protocol: str) -> Splits:
        """The data under a protocol of Omniglot's, or, of another data set, under its own."""
        own = protocol if self.data.name == "omniglot" else self.data.protocol
        return read_once(dataclasses.replace(self.data, protocol=own))


read_once = lru_cache(maxsize=8)(read_data)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its rows in order, and what becomes of it."""

    name: str
    protocol: str  # "": that of its cells
    order: tuple[str, ...]
    data: tuple[str, ...]  # names of the data sets whose cells count
    usual: tuple[str, ...] = ()  # rows that are computed unless others are named; default: all
    figure: Callable[[Path, Cells], None] | None = None  # draws the merged cells
    pictures: Callable[[Any, Path], Sequence[Path]] | None = None
    """Draws what was trained, once all is there: (config, folder) -> files."""


Pieces = Callable[[Any], Sequence[Piece]]  # all pieces of a config, in the order in which they are computed


def table_main(
    table: Table, config: type[TableConfig], pieces: Pieces, description: str | None, args: list[str] | None = None
) -> None:
    """Plans, computes, or merges a table, as the command line says."""
    run_table(table, parse(config, description, args=args), pieces)


def run_table(table: Table, config: TableConfig, pieces: Pieces) -> None:
    """Plans, computes, or merges a table."""
    with errors_as_messages():
        rows = config.rows or table.usual or table.order
        check_names("rows", rows, table.order)
        if config.merge:
            result = merge(table, config.folders)
            if table.figure is not None:
                table.figure(RESULTS / "figures" / f"{table.name}.png", result.cells)
            copy_pictures(RESULTS, table.name, config.folders)
            draw_readme()
            return
        folder = config.folder(table.name)
        if not config.plan:
            set_up_compilation(config.devices)
        wanted = [piece for piece in pieces(config) if piece.row in rows]
        if config.plan:
            console.print(plan_table(wanted, folder, config.seeds))
            return
        complete = compute_pieces(table.name, wanted, folder, config)
        done = [cell for piece in wanted for cell in finished(piece, folder, config.seeds)]
        if done:
            result = merged_table(table, done, command_line(f"experiments.tables.{table.name}"))
            write_result(folder / "table.json", result)
            console.print(terminal_table(result))
        if complete:
            for path in table.pictures(config, folder) if table.pictures else ():
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

    say = partial(console.print, highlight=False)
    return run_jobs([job(piece) for piece in pieces], config.minutes, say=say, say_error=print_error)


def merged_table(table: Table, cells: Sequence[Result], command: str) -> Result:
    """The table of a number of cells."""
    return merged(table.name, cells, table.order, COLUMNS[table.name], command=command, protocol=table.protocol)


def merge(table: Table, folders: Sequence[Path], results: Path = RESULTS) -> Result:
    """Adds the finished cells below ``folders`` to those in ``results``, and writes the table of them all."""
    result = add_cells(
        results,
        table.name,
        folders,
        data=table.data,
        rows=table.order,
        columns=COLUMNS[table.name],
        command=f"python -m experiments.tables.{table.name} --merge",
        protocol=table.protocol,
    )
    console.print(terminal_table(result))
    console.print(f"{sum(map(len, result.config['cells'].values()))} cells: {results / table.name}.json")
    return result
