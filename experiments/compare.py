"""Compare finished runs: one table, a figure of results and one of training, and what differs beyond chance.

    python -m experiments.compare runs/metatrain-glyphs runs/metatrain-prototypical
    python -m experiments.compare runs/a runs/b runs/c --rows student meta_learned --folder runs/a-b-c

Where two rows were judged on the same episodes (the same data, protocol and seed), their difference is taken episode by
episode; elsewhere as of independent numbers, and it is said which. Writes result.json, report.md and figures.
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro

from experiments.cli import Report, command_line, errors_as_messages, parse, write_report
from metarep_jax.evaluate import Interval, paired_difference
from metarep_jax.report.episodes import Episodes, load_episodes
from metarep_jax.report.results import Cells, Result, difference, read_result
from metarep_jax.stages.figures import bars_figure, curves_figure


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Flags of experiments.compare."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of finished runs, two or more."""
    rows: tuple[str, ...] = ()
    """Rows of their results to compare; default: all."""
    folder: Path = Path("runs/compare")
    """Where the comparison is written."""


def read_run(folder: Path, rows: Sequence[str]) -> Result:
    """The result of a finished run, with those ``rows`` that it has.

    Raises:
      FileNotFoundError: for a folder without a result.
      ValueError: for one with none of the rows; lists those that it has.
    """
    file = folder / "result.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no result.json; give folders of finished runs")
    result = read_result(file)
    cells = {row: columns for row, columns in result.cells.items() if not rows or row in rows}
    if not cells:
        raise ValueError(f"{folder} has none of the rows {', '.join(rows)}; it has: {', '.join(result.cells)}")
    return dataclasses.replace(result, cells=cells)


def names_of(folders: Sequence[Path]) -> list[str]:
    """The folders' last parts, as many as tell them apart."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise ValueError("the same run is given twice")


def joined_cells(results: dict[str, Result]) -> Cells:
    """All rows, each with its run's name."""
    return {f"{name}: {row}": columns for name, result in results.items() for row, columns in result.cells.items()}


def compared(
    first: tuple[str, Result, Episodes | None], second: tuple[str, Result, Episodes | None], row: str
) -> str | None:
    """A sentence about a row that two runs have: the differences in every column that they share."""
    (name, one, here), (other, two, there) = first, second
    told = []
    for column in one.cells[row]:
        if column == "parameters" or column not in two.cells[row]:
            continue
        paired = _paired(here, there, row, column)
        if paired is None:
            gain, margin = difference(one.cells[row][column], two.cells[row][column])
        else:
            gain, margin = paired.mean, paired.ci95 or 0.0
        how = "paired by episode" if paired else "as of independent episodes"
        verdict = "beyond chance" if abs(gain) > margin else "within chance"
        told.append(f"{column} {gain:+.2f} ± {margin:.2f} ({verdict}, {how})")
    return f"{row}, {name} less {other}: {'; '.join(told)}." if told else None


def _paired(here: Episodes | None, there: Episodes | None, row: str, column: str) -> Interval | None:
    if here is None or there is None or here.source != there.source:
        return None
    one, two = (episodes.values.get(row, {}).get(column) for episodes in (here, there))
    return paired_difference(one, two) if one is not None and two is not None and len(one) == len(two) else None


def episodes_of(folder: Path, result: Result) -> Episodes | None:
    """A run's accuracies by episode; of several seeds, one seed's after the other's."""
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


def main(args: Sequence[str] | None = None) -> None:
    """Reads the runs, and writes their comparison."""
    config, started = parse(CompareConfig, __doc__, args=args), time.perf_counter()
    with errors_as_messages():
        if len(config.runs) < 2:
            raise ValueError(f"give two or more folders of finished runs, got {len(config.runs)}")
        names = names_of(config.runs)
        results = {name: read_run(folder, config.rows) for name, folder in zip(names, config.runs, strict=True)}
        episodes = {name: episodes_of(folder, results[name]) for name, folder in zip(names, config.runs, strict=True)}
        runs = [(name, results[name], episodes[name]) for name in names]
        sentences = [
            compared(first, second, row)
            for first, second in itertools.combinations(runs, 2)
            for row in first[1].cells
            if row in second[1].cells
        ]
        cells = joined_cells(results)
        curves = {name: folder for name, folder in zip(names, config.runs) if (folder / "metrics.jsonl").is_file()}
        figures = [bars_figure(config.folder, cells), *([curves_figure(config.folder, curves)] if curves else [])]
        notes = [sentence for sentence in sentences if sentence]
        protocols = {result.protocol for result in results.values()}
        if len(protocols) > 1:
            notes.append(
                f"The runs are of different protocols, and their numbers do not compare: {'; '.join(protocols)}"
            )
        write_report(
            config.folder,
            Report(cells, figures, notes),
            name="compare",
            command=command_line("experiments.compare"),
            config={"runs": names, "rows": list(config.rows)},
            protocol=" / ".join(sorted(protocols)),
            seeds=sorted({seed for result in results.values() for seed in result.seeds}),
            wall_clock_s=time.perf_counter() - started,
        )


if __name__ == "__main__":
    main()
