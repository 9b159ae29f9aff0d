"""Pieces of tables: a training run a seed and the cells that it gives, each a result file of its own.

A cell is FOLDER/ROW/COLUMN/result.json. It is finished when it was computed by the settings and the version of the
definition that its row has today, with at least as many seeds.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cattrs

from metarep_jax.evaluate import Interval, interval_over_seeds
from metarep_jax.files import atomic_write
from metarep_jax.report.cells import cell_result, device_name
from metarep_jax.report.migrate import migrated_settings
from metarep_jax.report.provenance import device_of_run
from metarep_jax.report.published import Published
from metarep_jax.report.results import Result, read_result, write_result
from metarep_jax.train.storage import wall_clock


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
    settings: Mapping[str, Any]  # all that its numbers depend on, its "data" by name among them; kept as plain values
    train: Callable[[Path, int], Any]  # (folder of a seed, seed) -> what was trained; goes on where it stopped
    judge: Callable[[Sequence[Any]], Sequence[Judged]]  # what was trained, by seed -> what came out
    steps: int
    minutes: float  # estimate for two CPU cores
    version: int = 1  # of the definition: changed where the same settings give other numbers
    training: str = ""  # names its folder; those that share one train alike, and its time counts once
    shown: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what the table's settings tell
    combine: Callable[[Sequence[Interval]], Interval] = interval_over_seeds  # the seeds' intervals into one
    check: Callable[[], Any] = lambda: None  # raises for data that are missing, before anything is trained

    def __post_init__(self):
        object.__setattr__(self, "settings", plain(self.settings))

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


def run_piece(
    table: str,
    piece: Piece,
    folder: Path,
    *,
    seeds: int,
    budget: str,
    command: str,
    published: Callable[[str, str, str], Published | None] = lambda table, row, column: None,
) -> list[Result]:
    """Trains (or finds the training done) and judges a piece, for each seed, and writes a file a cell.

    Args:
      table: its name.
      piece: what is computed.
      folder: of the budget; cells and trainings lie below it.
      seeds: training runs, of seeds 0 to ``seeds`` - 1.
      budget, command: what the cells say of how they were computed.
      published: what was published for (table, row, column).
    """
    training, trained = piece.training or piece.row, []
    places = [folder / training / f"seed{seed}" for seed in range(seeds)]
    for seed, place in enumerate(places):
        claim(place, piece)
        with wall_clock.counted(place, device_name(device_of_run()), piece.steps):
            trained.append(piece.train(place, seed))
    begun = time.perf_counter()
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
            budget=budget,
            command=command,
            protocol=piece.protocol,
            seeds=list(range(seeds)),
            settings=piece.settings,
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
    return version == piece.version and migrated_settings(cell) == piece.settings


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, dataclasses and choices among them, as JSON holds them."""
    return json.loads(json.dumps(cattrs.unstructure(settings), default=str))
