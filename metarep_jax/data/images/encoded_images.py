"""A data set before its images are decoded: where each is, and its class."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metarep_jax.data.images.image_decoding import FILTERS, Encoded, Progress, decode_all
from metarep_jax.data.source_arrays import Source

HELD_BESIDE_A_STREAM = 50  # images a class: enough for any episode, and for whitening


@dataclasses.dataclass(frozen=True)
class Reading:
    """How encoded images are read: their form, and how many are held in memory; see ``sources.image_folder``."""

    image_size: int | None = None
    channels: int | None = None
    resample: str = "bilinear"
    per_class: int | None = None
    stream: bool = False
    workers: int = 2

    def __post_init__(self):
        for name, least in (("image_size", 1), ("per_class", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--data.{name.replace('_', '-')} must be at least {least}, got {value}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"--data.channels must be 1 or 3, got {self.channels}")
        if self.resample not in FILTERS:
            raise ValueError(f"--data.resample must be one of {', '.join(FILTERS)}, got {self.resample!r}")

    @property
    def held_of_each(self) -> int | None:
        """How many images of a class are held in memory at most, in each part; None: all."""
        return HELD_BESIDE_A_STREAM if self.stream and self.per_class is None else self.per_class


class Records(NamedTuple):
    """Encoded images with random access, and their classes. Picklable, so that reading processes can have it."""

    files: Sequence[Encoded]
    label: Int[np.ndarray, " n"]  # 0 … classes-1
    names: tuple[str, ...]  # of the classes
    group: tuple[str, ...]  # of the classes; see Source
    what: str  # names the data set in messages
    key: str  # changes when the data do
    part: Int[np.ndarray, " n"] | None = None  # of each image; see Source
    reading: Reading = Reading()


def read_records(
    records: Records,
    rows: Int[np.ndarray, " m"] | None = None,
    *,
    size: int | None,
    channels: int | None,
    progress: Progress | None = None,
    after: Callable[[np.ndarray], np.ndarray] = lambda images: images,
) -> Source:
    """Decodes the images, or those of some ``rows``; ``after`` changes the result."""
    rows = np.arange(len(records.label)) if rows is None else rows
    form = {"size": size, "channels": channels, "resample": records.reading.resample}
    images = decode_all(records.files, rows.tolist(), records.what, **form, progress=progress)
    part = None if records.part is None else records.part[rows]
    return Source(after(images), records.label[rows].astype(np.int32), records.names, records.group, part)


def some_of_each(label: Int[np.ndarray, " n"], per_class: int | None, seed: int) -> Int[np.ndarray, " m"]:
    """Rows in order: all of them, or at most ``per_class`` of each label."""
    if per_class is None:
        return np.arange(len(label))
    order = np.random.default_rng(seed).permutation(len(label))
    by_label = order[np.argsort(label[order], kind="stable")]
    _, start = np.unique(label[by_label], return_index=True)
    place = np.arange(len(label)) - np.repeat(start, np.diff([*start, len(label)]))
    return np.sort(by_label[place < per_class])
