"""What every experiment shares: its common flags, and the way from a config to a report."""

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cattrs
from rich.logging import RichHandler

from experiments.flags import console, parse, parse_preset, print_error
from metarep_jax.data import DataConfig, Splits, load_splits
from metarep_jax.data.array_cache import default_cache_dir
from metarep_jax.data.text.tokenizer import keep_tokenizer
from metarep_jax.files import check_on_disk
from metarep_jax.report import markdown, results, tables
from metarep_jax.stages.compute import Compute, data_identity
from metarep_jax.stages.result_cells import mean_over_models
from metarep_jax.stages.starting_models import inputs_of_models
from metarep_jax.train import (
    TrainingDiverged,
    on_main_process,
    open_run,
    start_processes,
    use_compilation_cache,
    use_cpu_devices,
)


@dataclasses.dataclass(frozen=True)
class CommonConfig:
    """Flags that every experiment has."""

    data: DataConfig = DataConfig()
    """Which data, and its protocol."""
    run_folder: Path | None = None
    """Where the run writes; default: runs/NAME-DATA. The same command resumes what was interrupted."""
    seed: int = 0
    """All randomness of the run follows from it."""
    seeds: int = 1
    """So many runs, of this seed and those after it, one after the other, each in a folder of its own; the result is
    their means, with intervals over seeds."""
    devices: int | None = None
    """Devices to use; default: all that divide a batch (on a CPU, one a core)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; auto: bfloat16 on accelerators, float32 on a CPU. Parameters are float32."""
    allow: tuple[str, ...] = ()
    """Modules of your own that models in run folders may name: loading them runs their code."""
    coordinator: str | None = None
    """Several hosts: HOST:PORT of the first process, or auto (TPU pods, Slurm). Every process gets the same command and
    sees the same disk; the first one writes."""
    processes: int | None = None
    """Several hosts: processes in all."""
    process_index: int | None = None
    """Several hosts: which one this is, 0 to processes-1."""

    def __post_init__(self):
        if self.coordinator is None and (self.processes, self.process_index) != (None, None):
            raise ValueError("--processes and --process-index must go with a --coordinator, such as HOST:PORT or auto")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")
        if self.devices is not None and self.devices < 1:
            raise ValueError(f"--devices must be at least 1, got {self.devices}")

    @property
    def default_folder(self) -> str:
        """What the default run folder is called beside the experiment's name: after the data, and of data that have no
        name of their own after their folder."""
        name = self.data.name.replace("/", "_").replace(":", "_")
        folder = self.data.data_dir
        return f"{name}-{folder.expanduser().absolute().name}" if name in OF_FOLDERS and folder else name


def folder_of(*names: str) -> str:
    """The name of a run folder: what is not empty, joined; of a dotted path, the last part."""
    return "-".join(name.rpartition(":")[2] for name in names if name)


OF_FOLDERS = ("folder", "audio", "text")  # data sets that are whatever lies in --data.data-dir


class Report(NamedTuple):
    """What an experiment has to say: rows of cells, figures, and sentences under the table."""

    cells: results.Cells
    figures: Sequence[Path] = ()
    notes: Sequence[str] = ()


Work = Callable[[Any, Splits, Compute], Report]  # (config, data, where and how)


def run_experiment(name: str, work: Work, config: Any) -> None:
    """Sets up devices, data and run folder, runs ``work`` and writes its report.

    Ends with an error's message and a non-zero status where there is one that a user can act on.
    """
    started = time.perf_counter()
    with errors_as_messages():
        set_up_compilation(config.devices, config.data.cache_dir)
        if config.coordinator is not None:
            address = None if config.coordinator == "auto" else config.coordinator
            start_processes(address, config.processes, config.process_index)
            console.quiet = not on_main_process()
        splits = read_data(config.data)
        folder = (config.run_folder or Path("runs") / f"{name}-{config.default_folder}").expanduser()
        sizes = ", ".join(f"{part} {getattr(splits, part).count.shape[0]}" for part in ("train", "val", "test"))
        console.print(f"[bold]{name}[/] on {splits.protocol.name}: classes {sizes}; run folder {folder}")
        models = {name: getattr(config, name, None) for name in ("start", "teacher", "features")}
        inputs = {"data": data_identity(splits), **inputs_of_models(models, splits, config.allow)}
        with open_run(folder, training_settings(config), inputs=inputs, other_steps=True, hold=on_main_process()):
            if splits.tokenizer is not None and on_main_process():
                keep_tokenizer(folder, splits.tokenizer)
            described = {
                "name": name,
                "command": command_line(f"experiments.{name}"),
                "config": settings_of(config),
                "protocol": f"{splits.protocol.name}: {splits.protocol.description}",
            }
            compute, reports = Compute(folder, config.seed, config.devices, config.precision), []
            seeds = range(config.seed, config.seed + config.seeds)
            for seed in seeds:
                own, begun = compute, time.perf_counter()
                if config.seeds > 1:
                    own = dataclasses.replace(compute.below(f"seed{seed}"), seed=seed)
                    console.print(f"[bold]seed {seed}[/], the last is {seeds[-1]}; folder {own.folder}")
                reports.append(work(dataclasses.replace(config, seed=seed, seeds=1), splits, own))
                if config.seeds > 1:
                    spent = time.perf_counter() - begun
                    write_report(own.folder, reports[-1], **described, seeds=[seed], wall_clock_s=spent)
            report = reports[0] if config.seeds == 1 else mean_report(reports)
            report = report._replace(notes=[f"held out: {splits.describe()}", *report.notes])
            write_report(folder, report, **described, seeds=list(seeds), wall_clock_s=time.perf_counter() - started)


def mean_report(reports: Sequence[Report]) -> Report:
    """The means over seeds, with the first seed's figures."""
    notes = [f"means over {len(reports)} seeds, with the wider interval of that over episodes and that over seeds; the"
             " figures are of the first seed"]  # fmt: skip
    return Report(mean_over_models([report.cells for report in reports], one_test=False), reports[0].figures, notes)


def set_up_compilation(devices: int | None, cache_dir: Path | None = None) -> None:
    """A CPU's devices, and the folder that keeps compiled programs: beside the data's cache, or $METAREP_COMPILED, or
    none where that is "off"."""
    use_cpu_devices(devices)
    place = os.environ.get("METAREP_COMPILED", "")
    if place != "off":
        use_compilation_cache(Path(place).expanduser() if place else (cache_dir or default_cache_dir()) / "compiled")


@contextlib.contextmanager
def errors_as_messages() -> Iterator[None]:
    """Log lines on the console; an error that a user can act on ends the program with its message and status 1."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        datefmt="[%X]",
        handlers=[RichHandler(console=console, show_path=False)],
    )
    for chatty in ("absl", "jax", "orbax", "grain", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        yield
    except (ValueError, OSError, TrainingDiverged) as error:
        print_error(error)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:  # outside of training, which saves first and ends by itself
        print_error(KeyboardInterrupt("interrupted; the same command goes on from what is finished"))
        raise SystemExit(128 + signal.SIGINT) from error


def with_data_dir(data: DataConfig) -> DataConfig:
    """The config with $METAREP_DATA for a folder where it names none."""
    if data.data_dir is None and data.takes_data_dir and os.environ.get("METAREP_DATA"):
        check_on_disk(os.environ["METAREP_DATA"], "METAREP_DATA")
        return dataclasses.replace(data, data_dir=Path(os.environ["METAREP_DATA"]))
    return data


def read_data(data: DataConfig) -> Splits:
    """The data of a config, from $METAREP_DATA where it names no folder."""
    data = with_data_dir(data)
    with console.status(f"reading {data.name}") as status:
        return load_splits(data, lambda done, total: status.update(f"reading {data.name}: {done} of {total} images"))


def settings_of(config: Any) -> dict[str, Any]:
    """The config as plain values, without where data lie and where the run is computed and written."""
    settings = cattrs.unstructure(config)
    for where in ("run_folder", "allow", "coordinator", "processes", "process_index"):
        settings.pop(where, None)
    data = settings.get("data", {})
    for place in ("data_dir", "cache_dir", "tokenizer_from"):
        data.pop(place, None)
    return settings


def training_settings(config: Any) -> dict[str, Any]:
    """Those settings that a trained model depends on: a finished run may be judged again on other test episodes."""
    settings = settings_of(config)
    for judging in ("evaluate", "seeds"):
        settings.pop(judging, None)
    return settings


def command_line(name: str) -> str:
    """The command that was typed, without paths of this machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python -m", name, *words])


def write_report(folder: Path, report: Report, **result: Any) -> None:
    """Writes result.json and report.md, and prints the table; ``result`` goes to ``results.make_result``."""
    if not on_main_process():
        return
    made = results.make_result(cells=report.cells, **result)
    results.write_result(folder / "result.json", made)
    markdown.write_report(folder, made, list(report.figures), list(report.notes))
    console.print(tables.terminal_table(made))
    for note in report.notes:
        console.print(f"• {note}", highlight=False)
    console.print(f"report: {folder / 'report.md'}")


__all__ = [
    "CommonConfig",
    "Report",
    "command_line",
    "console",
    "errors_as_messages",
    "folder_of",
    "parse",
    "parse_preset",
    "print_error",
    "read_data",
    "run_experiment",
    "settings_of",
    "write_report",
]
