"""The data and the means of the stages inside a table."""

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from experiments.cli import read_data
from metarep_jax.data import DataConfig, Splits
from metarep_jax.stages import Compute
from metarep_jax.train import dividing_devices, local_devices


class Means(Protocol):
    """What a table's config says of the computation."""

    @property
    def devices(self) -> int | None: ...

    @property
    def precision(self) -> Any: ...


def compute_in(folder: Path, means: Means, *, seed: int, batch: int) -> Compute:
    """What a stage takes: as many devices as divide the ``batch``."""
    devices = len(dividing_devices(local_devices(means.devices), batch))
    return Compute(folder, seed, devices, means.precision)


@lru_cache(maxsize=8)
def splits_of(data: DataConfig, protocol: str) -> Splits:
    """The data under a protocol of Omniglot's, or, of another data set, under its own."""
    return read_data(dataclasses.replace(data, protocol=protocol if data.name == "omniglot" else data.protocol))
