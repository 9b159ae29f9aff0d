"""Tables whose rows are made whole: a row is one training run a seed, which gives all of its columns."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli import command_line, console, errors_as_messages
from experiments.readme import main as draw_readme
from experiments.tables import wall_clock
from experiments.tables.cells import cell_line, cell_result, device_name
from experiments.tables.command import RESULTS, TableConfig, check_names, merge, plan_table, show
from experiments.tables.jobs import Job, run_jobs
from metarep_jax.data import DataConfig
from metarep_jax.evaluate import Interval, interval_over_seeds
from metarep_jax.report.provenance import device_of_run
from metarep_jax.report.results import Cells, Result, read_result, write_result
from metarep_jax.train import use_cpu_devices
from metarep_jax.train.storage.settings import config_differences

Measure = Callable[[Path, int], dict[str, Interval]]  # (folder of a seed, seed) -> the columns


@dataclasses.dataclass(frozen=True)
class Row:
    """How a row is made."""

    name: str
    columns: tuple[str, ...]
    protocol: str
    settings: Mapping[str, Any]  # all that its numbers depend on, as plain values, its "data" by name among them
    measure: Measure  # trains, or goes on, and judges
    steps: int
    minutes: float  # estimate for two CPU cores
    shown: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what the table of settings tells beside
    combine: Callable[[Sequence[Interval]], Interval] = interval_over_seeds  # the seeds' intervals into one


@dataclasses.dataclass(frozen=True)
class RowsConfig(TableConfig):
    """Flags of a table of whole rows."""

    rows: tuple[str, ...] = ()
    """Which rows; default: all."""


@dataclasses.dataclass(frozen=True)
class OmniglotRowsConfig(RowsConfig):
    """Flags of a table of whole rows on Omniglot."""

    data: DataConfig = DataConfig(name="omniglot")
    """Omniglot; another data set of images is taken under its own protocol, to try things out."""
    episodes: int | None = None
    """Test episodes a column; default: the protocol's (2,000)."""


@dataclasses.dataclass(frozen=True)
class RowTable:
    """A table of whole rows."""

    name: str
    protocol: str
    order: tuple[str, ...]
    data: tuple[str, ...]  # names of the data sets whose cells count
    figure: Callable[[Path, Cells], None] | None = None  # draws the cells


def main(table: RowTable, config: RowsConfig, rows: Callable[[], Sequence[Row]]) -> None:
    """Plans, computes, or merges; ``rows`` makes those of the config."""
    with errors_as_messages():
        check_names("rows", config.rows or table.order, table.order)
        if config.merge:
            result = merge(table.name, config.folders, table.order, protocol=table.protocol, data=table.data)
            if table.figure is not None:
                table.figure(RESULTS / "figures" / f"{table.name}.png", result.cells)
            draw_readme()
            return
        folder = config.folder(table.name)
        if not config.plan:
            use_cpu_devices(config.devices)
        made = [row for row in rows() if row.name in (config.rows or table.order)]
        if config.plan:
            lines = [(r.name, r.protocol, f"{r.steps:,}", r.minutes, _done(folder, r, config)) for r in made]
            plan_table(lines, config.seeds)
            return
        complete = run_jobs([_job(table.name, row, folder, config) for row in made], config.minutes)
        done = [cell for row in made for cell in finished(folder, row, config.seeds)]
        command = command_line(f"experiments.tables.{table.name}")
        show(table.name, done, table.order, folder / "table.json", command=command, protocol=table.protocol)
        if complete:
            where = folder.parent
            console.print(f"all rows are there; python -m experiments.tables.{table.name} --merge {where}")


def _job(table: str, row: Row, folder: Path, config: RowsConfig) -> Job:
    def work() -> str:
        return "; ".join(cell_line(cell) for cell in run_row(table, row, folder, config))

    return Job(row.name, work, lambda: _done(folder, row, config))


def _done(folder: Path, row: Row, config: RowsConfig) -> bool:
    return len(finished(folder, row, config.seeds)) == len(row.columns)


def finished(folder: Path, row: Row, seeds: int) -> list[Result]:
    """The row's cells that were made with its settings and at least so many seeds."""
    found = []
    for column in row.columns:
        file = folder / row.name / column / "result.json"
        if file.is_file():
            result = read_result(file)
            if not config_differences(result.config["settings"], dict(row.settings)) and len(result.seeds) >= seeds:
                found.append(result)
    return found


def run_row(table: str, row: Row, folder: Path, config: RowsConfig) -> list[Result]:
    """Trains and judges a row, for each seed, and writes a cell's file a column."""
    measured, seconds, devices = [], 0.0, []
    for seed in range(config.seeds):
        place = folder / row.name / f"seed{seed}"
        place.mkdir(parents=True, exist_ok=True)
        with wall_clock.counted(place, device_name(device_of_run())):
            begun = time.perf_counter()
            measured.append(row.measure(place, seed))
            console.print(f"{row.name}, seed {seed}: {time.perf_counter() - begun:.0f} s", highlight=False)
        seconds += wall_clock.seconds_spent(place)
        devices += wall_clock.devices_used(place)
    cells = []
    for column in row.columns:
        each = [found[column] for found in measured]
        cell = cell_result(
            table,
            row.name,
            column,
            row.combine(each),
            budget=config.budget,
            command=command_line(f"experiments.tables.{table}"),
            protocol=row.protocol,
            seeds=list(range(config.seeds)),
            settings=dict(row.settings),
            shown={
                "steps": f"{row.steps:,}",
                "device": ", ".join(dict.fromkeys(devices)),
                **row.shown,
                "seed_means": [round(one.mean, 3) for one in each],
            },
            training=row.name,
            train_s=seconds,
            evaluate_s=0.0,
        )
        write_result(folder / row.name / column / "result.json", cell)
        cells.append(cell)
    return cells
