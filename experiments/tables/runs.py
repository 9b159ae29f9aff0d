"""Runs inside a table: their data, devices, and a folder that is held for one set of settings."""

import dataclasses
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cattrs

from experiments.common import CommonConfig, Run, fitted_encoder, read_data, training_settings
from metarep_jax.data import DataConfig, Splits
from metarep_jax.encoders import EncoderConfig
from metarep_jax.model import Model
from metarep_jax.train import dividing_devices, local_devices, open_run


class Where(Protocol):
    """What a table's config says of the computation."""

    @property
    def devices(self) -> int | None: ...

    @property
    def precision(self) -> Any: ...


def make_run(
    table: str,
    where: Where,
    folder: Path,
    splits: Splits,
    data: DataConfig,
    encoder: EncoderConfig,
    *,
    seed: int,
    batch: int,
) -> Run:
    """What the experiments' functions take: as many devices as divide the ``batch``."""
    config = CommonConfig(data=data, encoder=fitted_encoder(encoder, splits), seed=seed, precision=where.precision)
    devices = dividing_devices(local_devices(where.devices), batch)
    return Run(table, folder, config, splits, time.perf_counter(), devices)


def held(run: Run, settings: Any, train: Callable[[], Model]) -> Model:
    """The model of a stage, trained or gone on with in the run's folder, which is held for these settings.

    Raises:
      ValueError: where the folder holds a run of other settings.
    """
    told = {**training_settings(run.config), "training": cattrs.unstructure(settings), "tokenizer": run.tokenizer}
    with open_run(run.folder, told):
        return train()


@lru_cache(maxsize=8)
def splits_of(data: DataConfig, protocol: str) -> Splits:
    """The data under a protocol of Omniglot's, or, of another data set, under its own."""
    return read_data(dataclasses.replace(data, protocol=protocol if data.name == "omniglot" else data.protocol))
