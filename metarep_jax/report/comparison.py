"""Finished runs side by side: what differs between their rows, and whether it is beyond chance."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarep_jax.evaluate import Interval, paired_difference
from metarep_jax.report.episodes import Episodes, load_episodes
from metarep_jax.report.results import Cells, Result, difference, read_result


class Run(NamedTuple):
    """A finished run: how it is called beside the others, and what it measured (``episodes`` where they were kept)."""

    name: str
    folder: Path
    result: Result
    episodes: Episodes | None


def read_runs(folders: Sequence[Path], rows: Sequence[str] = ()) -> list[Run]:
    """The finished runs in the folders, each named by as much of its folder's path as tells it from the others.

    Args:
      folders: two or more.
      rows: of their results, those to compare; none: all.

    Raises:
      FileNotFoundError: for a folder without a result.
      ValueError: for fewer than two folders or the same one twice, and for one with none of the rows; lists those
        that it has.
    """
    if len(folders) < 2:
        raise ValueError(f"give two or more folders of finished runs, got {len(folders)}")
    names = name_runs(folders)
    results = [read_rows(folder, rows) for folder in folders]
    return [
        Run(name, folder, result, load_seeds_episodes(folder, result))
        for name, folder, result in zip(names, folders, results, strict=True)
    ]


def describe_differences(runs: Sequence[Run]) -> list[str]:
    """A sentence for each pair of runs and each row that both have: the differences in every column that they share.

    Taken episode by episode where both were judged on the same episodes (the same data, protocol and seed), elsewhere
    as of independent numbers. Runs of different protocols are named at the end.
    """
    sentences = [
        sentence
        for first, second in itertools.combinations(runs, 2)
        for row in first.result.cells
        if row in second.result.cells and (sentence := _differences_of_row(first, second, row))
    ]
    protocols = dict.fromkeys(run.result.protocol for run in runs)
    if len(protocols) > 1:
        sentences.append(
            f"The runs are of different protocols, and their numbers do not compare: {'; '.join(protocols)}"
        )
    return sentences


def describe_gains(cells: Cells, compared: Mapping[str, tuple[str, str]]) -> list[str]:
    """A sentence for each pair of rows: the difference in every column that both have, and whether it exceeds chance.

    Args:
      cells: with all rows.
      compared: by what is said to make the difference, a row and the one that it is compared with.
    """
    notes = []
    for what, (row, other) in compared.items():
        differences = []
        for column in cells[row]:
            if column == "parameters" or column not in cells[other]:
                continue
            gain, margin = difference(cells[row][column], cells[other][column])
            verdict = "no measurable difference" if abs(gain) <= margin else f"{gain:+.1f} points"
            differences.append(f"{verdict} on {column}")
        notes.append(f"{what} ({row} against {other}): {', '.join(differences)}.")
    return notes


def join_rows(runs: Sequence[Run]) -> Cells:
    """All rows, each with its run's name."""
    return {f"{run.name}: {row}": columns for run in runs for row, columns in run.result.cells.items()}


def name_runs(folders: Sequence[Path]) -> list[str]:
    """The folders' last parts, as many as tell them apart.

    Raises:
      ValueError: for the same folder twice.
    """
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise ValueError("the same run is given twice")


def read_rows(folder: Path, rows: Sequence[str]) -> Result:
    """The result of a finished run, with those ``rows`` that it has; see ``read_runs`` for what it raises."""
    file = folder / "result.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no result.json; give folders of finished runs")
    result = read_result(file)
    cells = {row: columns for row, columns in result.cells.items() if not rows or row in rows}
    if not cells:
        raise ValueError(f"{folder} has none of the rows {', '.join(rows)}; it has: {', '.join(result.cells)}")
    return dataclasses.replace(result, cells=cells)


def load_seeds_episodes(folder: Path, result: Result) -> Episodes | None:
    """A run's accuracies by episode; of several seeds, one seed's after the other's. None where some are not there."""
    if len(result.seeds) == 1:
        return load_episodes(folder)
    each = [load_episodes(folder / f"seed{seed}") for seed in result.seeds]
    whole = [one for one in each if one is not None]
    if len(whole) < len(each):
        return None
    values = {
        row: {column: np.concatenate([one.values[row][column] for one in whole]) for column in columns}
        for row, columns in whole[0].values.items()
        if all(row in one.values and columns.keys() <= one.values[row].keys() for one in whole)
    }
    return Episodes(values, {**whole[0].source, "seed": ",".join(one.source["seed"] for one in whole)})


def _differences_of_row(first: Run, second: Run, row: str) -> str | None:
    one, two = first.result.cells[row], second.result.cells[row]
    differences = []
    for column in one:
        if column == "parameters" or column not in two:
            continue
        paired = _paired(first.episodes, second.episodes, row, column)
        if paired is None:
            gain, margin = difference(one[column], two[column])
        else:
            gain, margin = paired.mean, paired.ci95 or 0.0
        how = "paired by episode" if paired else "as of independent episodes"
        verdict = "beyond chance" if abs(gain) > margin else "within chance"
        differences.append(f"{column} {gain:+.2f} ± {margin:.2f} ({verdict}, {how})")
    return f"{row}, {first.name} less {second.name}: {'; '.join(differences)}." if differences else None


def _paired(first: Episodes | None, second: Episodes | None, row: str, column: str) -> Interval | None:
    if first is None or second is None or first.source != second.source:
        return None
    one, two = (episodes.values.get(row, {}).get(column) for episodes in (first, second))
    return paired_difference(one, two) if one is not None and two is not None and len(one) == len(two) else None
