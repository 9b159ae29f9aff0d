"""Compare finished runs: one table, a figure of results and one of training, and what differs beyond chance.

    python -m experiments.compare runs/metatrain-glyphs runs/metatrain-prototypical
    python -m experiments.compare runs/a runs/b runs/c --rows student meta_learned --folder runs/a-b-c

Where two rows were judged on the same episodes (the same data, protocol and seed), their difference is taken episode by
episode; elsewhere as of independent numbers, and it is said which. Writes result.json, report.md and figures.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import tyro

from experiments.cli import Report, command_line, errors_as_messages, parse, write_report
from metarep_jax.report.comparison import describe_differences, join_rows, read_runs
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


def main(args: Sequence[str] | None = None) -> None:
    """Reads the runs, and writes their comparison."""
    config, started = parse(CompareConfig, __doc__, args=args), time.perf_counter()
    with errors_as_messages():
        runs = read_runs(config.runs, config.rows)
        cells, notes = join_rows(runs), describe_differences(runs)
        curves = {run.name: run.folder for run in runs if (run.folder / "metrics.jsonl").is_file()}
        figures = [bars_figure(config.folder, cells), *([curves_figure(config.folder, curves)] if curves else [])]
        write_report(
            config.folder,
            Report(cells, figures, notes),
            name="compare",
            command=command_line("experiments.compare"),
            config={"runs": [run.name for run in runs], "rows": list(config.rows)},
            protocol=" / ".join(sorted({run.result.protocol for run in runs})),
            seeds=sorted({seed for run in runs for seed in run.result.seeds}),
            wall_clock_s=time.perf_counter() - started,
        )


if __name__ == "__main__":
    main()
