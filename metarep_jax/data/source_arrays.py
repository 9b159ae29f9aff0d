"""What every source of data gives: plain arrays on the host, and what is known of the classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from metarep_jax.data.array_cache import Arrays


class Source(NamedTuple):
    """A data set on the host: uint8 images, 16-bit waves or rows of token ids, and their classes.

    ``group`` is what a protocol may split classes by (script, alphabet), or "". ``part`` says in which part each
    example comes, 0 training, 1 validation, 2 testing; None: the data come in no parts.
    """

    images: Shaped[np.ndarray, "n ..."]
    label: Int[np.ndarray, " n"]  # 0 … classes-1
    names: tuple[str, ...]  # of the classes
    group: tuple[str, ...] = ()  # of the classes
    part: Int[np.ndarray, " n"] | None = None


def to_arrays(source: Source) -> Arrays:
    """The source as arrays for a cache."""
    arrays = {
        "images": source.images,
        "label": source.label.astype(np.int32),
        "names": np.array(source.names, dtype=np.str_),
        "group": np.array(source.group, dtype=np.str_),
    }
    return arrays if source.part is None else {**arrays, "part": source.part.astype(np.int32)}


def from_arrays(arrays: Arrays) -> Source:
    """The inverse of ``to_arrays``."""
    names, group = (tuple(arrays[key].tolist()) for key in ("names", "group"))
    return Source(arrays["images"], arrays["label"], names, group, arrays.get("part"))
