"""A data set before its images are decoded: where each is, and its class."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metarep_jax.data.images import Encoded, Progress, decode_all
from metarep_jax.data.source import Source


class Records(NamedTuple):
    """Encoded images with random access, and their classes. Picklable, so that reading processes can have it."""

    files: Sequence[Encoded]
    label: Int[np.ndarray, " n"]  # 0 … classes-1
    names: tuple[str, ...]  # of the classes
    group: tuple[str, ...]  # of the classes; see Source
    what: str  # names the data set in messages
    key: str  # changes when the data do
    part: Int[np.ndarray, " n"] | None = None  # of each image; see Source


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
    images = decode_all(records.files, rows.tolist(), records.what, size=size, channels=channels, progress=progress)
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
