"""A cell of a table as a result file of its own, and the table that such files make, in whatever order they came.

A cell's file is a ``Result`` with one row and one column (and what was published beside it). Its ``config`` says how
it was made; ``config["cell"]`` is what the table's settings show of that.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarep_jax.evaluate import Interval
from metarep_jax.report.labels import cell_text, higher_is_better
from metarep_jax.report.provenance import commit_of_code
from metarep_jax.report.published import Published, published_column, shortfall, standing
from metarep_jax.report.results import Result, make_result, read_result
from metarep_jax.report.tables import duration

BUDGETS = ("trial", "short", "full")  # of two files of one cell, the larger budget stands in the table


def cell_result(
    table: str,
    row: str,
    column: str,
    ours: Interval,
    *,
    budget: str,
    command: str,
    protocol: str,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    shown: Mapping[str, Any],
    training: str,
    train_s: float,
    evaluate_s: float,
    version: int = 1,
    beside: Published | None = None,
) -> Result:
    """The result file of one cell.

    Args:
      table, row, column: where it stands.
      ours: what was measured.
      budget, command, protocol, seeds: how.
      settings: all that the number depends on; plain values.
      shown: what the table's settings tell of that beside seeds, time and what was published; "device" where it was
        not this process's.
      training: names the training run; cells that share one give the same name, and its time counts once.
      train_s, evaluate_s: seconds, over all processes that the work was spread over.
      version: of the definition of the row: another one means that the same settings give other numbers.
      beside: what was published.
    """
    found: dict[str, Any] = {column: ours.cell()}
    told: dict[str, Any] = {**shown, "seeds": len(seeds), "time": duration(train_s + evaluate_s)}
    if beside is not None:
        found[published_column(column)] = beside.cell()
        told |= {"published": beside.source + ("" if beside.checked else " (from memory)")}
        told |= {"standing": stands(column, ours, beside)}
    result = make_result(
        name=table,
        command=command,
        config={
            "row": row,
            "column": column,
            "budget": budget,
            "settings": settings,
            "version": version,
            "training": training,
            "train_s": round(train_s, 1),
            "evaluate_s": round(evaluate_s, 1),
            "cell": told,
        },
        protocol=protocol,
        seeds=seeds,
        cells={row: found},
        wall_clock_s=train_s + evaluate_s,
    )
    told = {"device": device_name(result.device), **result.config["cell"]}
    return dataclasses.replace(result, config={**result.config, "cell": told})


def stands(column: str, ours: Interval, beside: Published) -> str:
    """Ours against what was published: "above", "within" or "below by 0.31"."""
    cell: Any = ours.cell()
    higher = higher_is_better(column)
    word = standing(cell, beside.cell(), higher_is_better=higher)
    return word if word != "below" else f"below by {shortfall(cell, beside.cell(), higher_is_better=higher):.2f}"


def cell_line(result: Result) -> str:
    """One line that says what came out of a cell."""
    row, column = result.config["row"], result.config["column"]
    cells = result.cells[row]
    text = f"{row} {column}: {cell_text(cells[column], column)}"
    if published_column(column) in cells:
        beside = cell_text(cells[published_column(column)], column)
        text += f" (published {beside}: {result.config['cell']['standing']})"
    return f"{text}, {duration(result.wall_clock_s)}"


def read_cells(table: str, folders: Iterable[Path]) -> list[Result]:
    """The cells of ``table`` in the result files of ``folders`` and all folders below them.

    Raises:
      FileNotFoundError: for a folder that is not there.
      ValueError: for a folder without a cell of the table, or a damaged file.
    """
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; give folders that hold cells of {table}")
        here = [result for path in sorted(folder.rglob("*.json")) if (result := _cell_of(table, path)) is not None]
        if not here:
            raise ValueError(f"{folder} holds no finished cell of {table} (files such as METHOD/COLUMN/result.json)")
        found += here
    return found


def _cell_of(table: str, path: Path) -> Result | None:
    if path.name != "result.json" and path.parent.name != table:  # checkpoints hold other JSON files
        return None
    result = read_result(path)
    return result if result.name == table and "cell" in result.config else None


def best_of(cells: Iterable[Result], kept: Iterable[Result] = ()) -> dict[tuple[str, str], Result]:
    """One file a (row, column): of the later definition, then the larger budget, more seeds, more steps.

    Never by its number. Of equals, those that are ``kept`` already give way.
    """
    chosen: dict[tuple[str, str], Result] = {}
    for cell in cells:
        place = (cell.config["row"], cell.config["column"])
        if place not in chosen or _rank(cell) > _rank(chosen[place]):
            chosen[place] = cell
    for cell in kept:
        place = (cell.config["row"], cell.config["column"])
        if place not in chosen or _effort(cell) > _effort(chosen[place]):
            chosen[place] = cell
    return chosen


def _effort(cell: Result) -> tuple:
    version, budget = cell.config.get("version", 1), BUDGETS.index(cell.config["budget"])
    return version, budget, len(cell.seeds), cell.config["settings"].get("steps", 0)


def _rank(cell: Result) -> tuple:
    made = [cell.config["settings"], cell.command, cell.commit, cell.versions, cell.device]
    return _effort(cell), json.dumps(made, sort_keys=True)  # decides between equals, in whatever order they came


def merged(
    table: str, cells: Iterable[Result], rows: Sequence[str], columns: Sequence[str], *, command: str, protocol: str
) -> Result:
    """The table of a number of cells' files; rows and columns stand in the order of ``rows`` and ``columns``.

    Its time is that of all trainings, each counted once, and all evaluations; its protocol, of "", that of its cells.
    """
    chosen = best_of(cells)
    if not chosen:
        raise ValueError(f"{table}: there are no cells to merge")
    order = [*rows, *sorted({row for row, _ in chosen} - set(rows))]
    places = sorted(chosen, key=lambda place: (order.index(place[0]), columns.index(place[1])))
    found: dict[str, dict] = {}
    details: dict[str, dict] = {}
    for row, column in places:
        cell = chosen[row, column]
        found.setdefault(row, {}).update(cell.cells[row])
        beside = {key: cell.config[key] for key in ("budget", "train_s", "evaluate_s", "training", "settings")}
        beside |= {"version": cell.config.get("version", 1)}
        beside |= {"protocol": cell.protocol, "commit": cell.commit, "command": cell.command}
        details.setdefault(row, {})[column] = {**beside, **cell.config["cell"]}
    trainings: dict[tuple[str, str], float] = {}
    for cell in chosen.values():
        run = (cell.config["budget"], cell.config["training"])
        trainings[run] = max(trainings.get(run, 0.0), cell.config["train_s"])
    commits = {cell.commit for cell in chosen.values()}
    packages = sorted({name for cell in chosen.values() for name in cell.versions})
    versions = {name: sorted({cell.versions.get(name, "–") for cell in chosen.values()}) for name in packages}
    return Result(
        name=table,
        command=command,
        config={"cells": details},
        protocol=protocol or " / ".join(sorted({cell.protocol for cell in chosen.values()})),
        seeds=sorted({seed for cell in chosen.values() for seed in cell.seeds}),
        commit=commits.pop() if len(commits) == 1 else commit_of_code(),
        versions={name: ", ".join(values) for name, values in versions.items()},
        device=_devices([cell.device for _, cell in sorted(chosen.items())]),
        wall_clock_s=round(sum(trainings.values()) + sum(c.config["evaluate_s"] for c in chosen.values()), 1),
        cells=found,
    )


def device_name(device: Mapping[str, Any]) -> str:
    """Such as "2 × cpu (AMD EPYC)"."""
    kind = f"{device.get('count', 1)} × {device.get('kind', '?')}"
    return f"{kind} ({device.get('cpu', '?')})" if device.get("platform") == "cpu" else kind


def _devices(devices: list[dict[str, Any]]) -> dict[str, Any]:
    """The device that all cells share, or what differs joined in words."""
    if all(device == devices[0] for device in devices):
        return devices[0]
    names = {name: sorted({str(device.get(name, "?")) for device in devices}) for name in devices[0]}
    joined = {name: " or ".join(values) for name, values in names.items()}
    return {**joined, "several": sorted({device_name(device) for device in devices})}
