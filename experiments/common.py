"""What every experiment shares: its common flags, the run folder, devices, and the way results are written."""

import contextlib
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cattrs
import jax
from rich.logging import RichHandler

from experiments.flags import console, print_error
from metarep_jax.data import DataConfig, Splits, load_splits
from metarep_jax.data.tokenizer import keep_tokenizer
from metarep_jax.encoders import EncoderConfig
from metarep_jax.model import Model, load, save_model
from metarep_jax.report import figures, markdown, results, tables
from metarep_jax.train import (
    FitConfig,
    TrainingDiverged,
    dividing_devices,
    local_devices,
    map_over_keys,
    on_main_process,
    open_run,
    start_processes,
    use_cpu_devices,
)
from metarep_jax.train.processes import broadcast_from_main


@dataclasses.dataclass(frozen=True)
class CommonConfig:
    """Flags that every experiment has."""

    data: DataConfig = DataConfig()
    """Which data, and its protocol."""
    encoder: EncoderConfig = EncoderConfig()
    """Which encoder, and its shape."""
    run_folder: Path | None = None
    """Where the run writes; default: runs/NAME-DATA. The same command resumes what was interrupted."""
    seed: int = 0
    """All randomness of the run follows from it."""
    devices: int | None = None
    """Devices to use; default: all that divide a batch (on a CPU, one a core)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; auto: bfloat16 on accelerators, float32 on a CPU. Parameters are float32."""
    coordinator: str | None = None
    """Several hosts: HOST:PORT of the first process, or auto (TPU pods, Slurm). Every process gets the same command and
    sees the same disk; the first one writes."""
    processes: int | None = None
    """Several hosts: processes in all."""
    process_index: int | None = None
    """Several hosts: which one this is, 0 to processes-1."""

    def __post_init__(self):
        if self.coordinator is None and (self.processes, self.process_index) != (None, None):
            raise ValueError("processes and process_index must go with a coordinator, such as HOST:PORT or auto")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.devices is not None and self.devices < 1:
            raise ValueError(f"devices must be at least 1, got {self.devices}")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run in progress: its folder, its data, and the helpers bound to its devices."""

    name: str
    folder: Path
    config: Any
    splits: Splits
    started: float
    devices: list

    @property
    def mapper(self) -> Callable[..., Any]:
        """Spreads evaluation episodes over the run's devices."""
        return partial(map_over_keys, devices=self.devices)

    def devices_of(self, train: FitConfig) -> list:
        """Those that a training uses: as many as divide its batch; all, where --devices says how many."""
        if self.config.devices is not None:
            return self.devices
        return dividing_devices(self.devices, train.batch_size, train.accumulate)

    @property
    def tokenizer(self) -> str:
        """Of text: the digest of the tokenizer that made the inputs; else ""."""
        return "" if self.splits.tokenizer is None else self.splits.tokenizer.digest

    @property
    def vocabulary(self) -> int:
        """Of text: how many tokens there are; else 0."""
        return 0 if self.splits.tokenizer is None else self.splits.tokenizer.size

    @property
    def has_images(self) -> bool:
        """Whether the data are images, of which there are views; not text or audio."""
        return self.splits.train.inputs.ndim == 4

    @property
    def has_classes(self) -> bool:
        """Whether there are test classes to tell apart; running text is of a single one."""
        return self.splits.test.count.shape[0] > 1

    def key(self, purpose: int) -> Any:
        """A key for one purpose, derived from the run's seed."""
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)


def run_experiment(name: str, work: Callable[[Run], None], config: CommonConfig) -> None:
    """Sets up devices, data and run folder, then runs ``work``; ends with an error's message and a non-zero status."""
    with errors_told():
        use_cpu_devices(config.devices)
        if config.coordinator is not None:
            address = None if config.coordinator == "auto" else config.coordinator
            start_processes(address, config.processes, config.process_index)
            console.quiet = not on_main_process()
        with prepared(name, config) as run:
            work(run)


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
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


@contextlib.contextmanager
def prepared(name: str, config: CommonConfig) -> Iterator[Run]:
    """The data, checked, and then the run folder, locked."""
    started = time.perf_counter()
    splits = read_data(config.data)
    config = dataclasses.replace(config, encoder=fitted_encoder(config.encoder, splits))
    devices = local_devices(config.devices)
    folder = config.run_folder or Path("runs") / f"{name}-{config.data.name.replace('/', '_')}"
    sizes = ", ".join(f"{part} {getattr(splits, part).count.shape[0]}" for part in ("train", "val", "test"))
    console.print(f"[bold]{name}[/] on {splits.protocol.name}: classes {sizes}; run folder {folder}")
    with open_run(folder, training_settings(config), hold=on_main_process()):
        if splits.tokenizer is not None and on_main_process():
            keep_tokenizer(folder, splits.tokenizer)
        yield Run(name, folder, config, splits, started, devices)


def fitted_encoder(encoder: EncoderConfig, splits: Splits) -> EncoderConfig:
    """The encoder with what the data say: no more token ids than the tokenizer has, recordings at their own rate."""
    if splits.tokenizer is not None:
        known = encoder.get("vocabulary")
        return encoder if known is None else dataclasses.replace(encoder, vocabulary=min(known, splits.tokenizer.size))
    if encoder.get("rate") is not None:
        return dataclasses.replace(encoder, rate=splits.config.get("rate"))
    return encoder


def with_data_dir(data: DataConfig) -> DataConfig:
    """The config with $METAREP_DATA for a folder where it names none."""
    if data.data_dir is None and os.environ.get("METAREP_DATA"):
        return dataclasses.replace(data, data_dir=Path(os.environ["METAREP_DATA"]))
    return data


def read_data(data: DataConfig) -> Splits:
    """The data of a config, from $METAREP_DATA where it names no folder."""
    data = with_data_dir(data)
    with console.status(f"reading {data.name}") as status:
        return load_splits(data, lambda done, total: status.update(f"reading {data.name}: {done} of {total} images"))


def stage(folder: Path, what: str, train: Callable[[], Model], config: FitConfig) -> Model:
    """The model of one stage: of an earlier run of the same command where it finished in ``folder``, or trained now.

    Raises:
      ValueError: for several seeds, since a stage hands one model on.
    """
    if broadcast_from_main((folder / "model" / "spec.json").is_file()):
        console.print(f"{what}: the model is in {folder} already")
        return load(folder)
    if config.seeds != 1:
        raise ValueError(f"an experiment hands one model on; train.seeds must be 1, got {config.seeds}. Vary --seed")
    model = train()
    if on_main_process():
        save_model(folder, model)
    return model


def loaded(run: Run, folder: Path) -> Model:
    """The model of a finished run, for this run's data.

    Raises:
      ValueError: when it takes token ids of another tokenizer, or recordings at another rate.
    """
    model = load(folder)
    check_model(run, folder, model)
    return model


def check_model(run: Run, folder: Path, model: Model) -> None:
    """Raises ValueError for a model, of ``folder``, that does not take the run's data: see ``loaded``."""
    rate = run.splits.config.get("rate")
    known = model.spec.encoder.get("rate", rate)
    if known != rate:
        raise ValueError(
            f"the model in {folder} takes recordings at {known} Hz, the data are read at {rate} Hz; "
            f"give --data.rate {known}"
        )
    if model.spec.tokenizer != run.tokenizer:
        raise ValueError(
            f"the model in {folder} takes {_ids(model.spec.tokenizer)}, the data are {_ids(run.tokenizer)}; give "
            f"--data.tokenizer-from {folder}, if they are text"
        )


def _ids(tokenizer: str) -> str:
    return f"token ids of the tokenizer {tokenizer}" if tokenizer else "no token ids"


def settings_of(config: Any) -> dict[str, Any]:
    """The config as plain values, without where data lie and where the run is computed and written."""
    settings = cattrs.unstructure(config)
    for where in ("run_folder", "coordinator", "processes", "process_index"):
        settings.pop(where, None)
    data = settings.get("data", {})
    for place in ("data_dir", "cache_dir", "tokenizer_from"):
        data.pop(place, None)
    return settings


def training_settings(config: Any) -> dict[str, Any]:
    """Those settings that a trained model depends on: a finished run may be judged again on other test episodes."""
    settings = settings_of(config)
    settings.pop("evaluate", None)
    return settings


def command_line(name: str) -> str:
    """The command that was typed, without paths of this machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python -m", name, *words])


def finish(
    run: Run, cells: dict[str, dict[str, Any]], *, figure_paths: Sequence[Path] = (), notes: Sequence[str] = ()
) -> None:
    """``conclude`` of a run on data."""
    conclude(
        run.folder,
        figure_paths=figure_paths,
        notes=notes,
        name=run.name,
        command=command_line(f"experiments.{run.name}"),
        config=settings_of(run.config),
        protocol=f"{run.splits.protocol.name}: {run.splits.protocol.description}",
        seeds=[run.config.seed],
        cells=cells,
        wall_clock_s=time.perf_counter() - run.started,
    )


def conclude(folder: Path, *, figure_paths: Sequence[Path] = (), notes: Sequence[str] = (), **result: Any) -> None:
    """Writes result.json and report.md, and prints the table; ``result`` goes to ``results.make_result``."""
    if not on_main_process():
        return
    made = results.make_result(**result)
    results.write_result(folder / "result.json", made)
    markdown.write_report(folder, made, list(figure_paths), list(notes))
    console.print(tables.terminal_table(made))
    for note in notes:
        console.print(f"• {note}", highlight=False)
    console.print(f"report: {folder / 'report.md'}")


__all__ = [
    "CommonConfig",
    "Run",
    "conclude",
    "console",
    "figures",
    "finish",
    "loaded",
    "run_experiment",
    "settings_of",
    "training_settings",
]
