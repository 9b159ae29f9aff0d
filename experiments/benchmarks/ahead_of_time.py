"""Every stage's training step, compiled for TPUs on a machine without one: what it costs, and whether it compiles.

    pip install -e '.[tpu-aot]'
    python -m experiments.benchmarks.ahead_of_time --topology v5e:2x2
    python -m experiments.benchmarks.ahead_of_time --topology v5e:8x16 --steps simclr_resnet50

The training loop's own dispatch (its update, repeated, mapped over the topology's chips) goes through the compiler for
TPUs, each step in a process of its own. Nothing runs: the numbers are the compiler's counts, a chip and a step;
loops inside a step count once. The roofline time is what a chip needs at least: the longer one of its products at their
full rate and of its bytes at the memory's; collectives come on top. A row is saved as soon as it is there. The same
command goes on after the last one, unless code or libraries have changed.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks.common import console
from experiments.benchmarks.tpu_program import CHIPS, FLOAT32, in_process
from experiments.benchmarks.tpu_steps import STEPS
from metarep_jax.report import results, tables
from metarep_jax.report.provenance import commit_of_code, versions_of_run

NAME = "ahead_of_time"
LARGE = ("simclr_resnet50",)  # compiled only where they are asked for: they are meant for larger topologies
PROTOCOL = (
    "the training loop's dispatch in bfloat16, compiled for TPUs; the compiler's counts, a chip and a training step; "
    "nothing ran; roofline: the longer of products and bytes at the chip's rates"
)


@dataclasses.dataclass(frozen=True)
class AheadOfTimeConfig:
    """Flags of experiments.benchmarks.ahead_of_time."""

    topology: str = "v5e:2x2"
    """The chips to compile for, as KIND:SHAPE; of a kind whose rates are known here: v4, v5e, v5p, v6e."""
    steps: tuple[str, ...] = tuple(name for name in STEPS if name not in LARGE)
    """Which steps; beside these there is simclr_resnet50 (4,096 images), for v5e:8x16."""
    limit: float = 300.0
    """Seconds after which a compilation is given up: its row then says that it does not compile."""
    anew: bool = False
    """Compile rows anew that are in the result file already."""
    result: Path = Path("runs") / f"{NAME}.json"
    """The result file, which is written and gone on with."""

    def __post_init__(self):
        if unknown := [step for step in self.steps if step not in STEPS]:
            raise ValueError(f"--steps: there is no {unknown[0]!r}; there are: {', '.join(STEPS)}")
        if not self.steps:
            raise ValueError(f"--steps needs at least one of: {', '.join(STEPS)}")
        if self.kind not in CHIPS:
            raise ValueError(
                f"--topology: chips of kind {self.kind!r} are not known; known are {', '.join(CHIPS)}, as in v5e:2x2"
            )
        if self.limit <= 0:
            raise ValueError(f"--limit must be positive, got {self.limit}")

    @property
    def kind(self) -> str:
        """Of the chips."""
        return self.topology.partition(":")[0]


def main(config: AheadOfTimeConfig) -> None:
    """Compiles every step, and writes the result file after each."""
    if importlib.util.find_spec("libtpu") is None:
        raise SystemExit("the compiler for TPUs is not installed: pip install -e '.[tpu-aot]'")
    cells, rows = read_rows(config)
    for name in config.steps:
        row = f"{name} {config.topology}"
        if row in cells:
            console.print(f"{row}: is in {config.result} already", highlight=False)
            continue
        with console.status(f"compiling {row}; given up after {config.limit:.0f} s"):
            cells[row], rows[row] = in_process(name, config.topology, config.limit)
        save(config, cells, rows)
        console.print(f"{row}: {sentence(cells[row], rows[row])}", highlight=False)
    console.print(tables.terminal_table(save(config, cells, rows)))
    console.print(f"result file: {config.result}", highlight=False)


def sentence(cells: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """What came out of a row."""
    if told["error"]:
        return told["error"]
    mean = {column: found["mean"] for column, found in cells.items()}
    text = f"{mean['gflop']:,.1f} GFLOP, {mean['gb']:.2f} GB, at least {mean['roofline_ms']:.2f} ms"
    places = ", ".join(f"{place} ({gflop:.2g} GFLOP)" for place, gflop in told["float32"].items())
    return text + (f"; float32, and not meant to be: {places}" if places else "")


def read_rows(config: AheadOfTimeConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of the result file, without those that are to be compiled, since another code or library made them."""
    if not config.result.is_file():
        return {}, {}
    result = results.read_result(config.result)
    cells, rows = dict(result.cells), dict(result.config["rows"])
    commit, versions = commit_of_code(), versions_of_run()
    for name in config.steps:
        row = f"{name} {config.topology}"
        if row not in rows:
            continue
        same = (rows[row]["commit"], rows[row]["versions"]) == (commit, versions)
        if config.anew or not same or not commit or commit.endswith("+dirty"):
            del cells[row], rows[row]
    return cells, rows


def save(config: AheadOfTimeConfig, cells: Mapping[str, Any], rows: Mapping[str, Any]) -> results.Result:
    """Writes the result file."""
    from experiments.cli import command_line

    order = sorted(cells, key=lambda row: list(STEPS).index(row.split()[0]))
    result = results.make_result(
        name=NAME,
        command=command_line(f"experiments.benchmarks.{NAME}"),
        config={"limit": config.limit, "float32_listed": FLOAT32, "rows": {row: rows[row] for row in order}},
        protocol=PROTOCOL,
        seeds=[0],
        cells={row: cells[row] for row in order},
        wall_clock_s=sum(row["compile_s"]["mean"] for row in cells.values()),
    )
    results.write_result(config.result, result)
    return result


if __name__ == "__main__":
    main(tyro.cli(AheadOfTimeConfig, description=__doc__))
