"""What every source of data gives: plain arrays on the host, and what is known of the classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from metarep_jax.data.cache import Arrays


class Source(NamedTuple):
    """A labelled data set on the host. ``group`` is what a protocol may split classes by (script, part), or ""."""

    images: Shaped[np.ndarray, "n ..."]
    label: Int[np.ndarray, " n"]  # 0 … classes-1
    names: tuple[str, ...]  # of the classes
    group: tuple[str, ...]  # of the classes


def to_arrays(source: Source) -> Arrays:
    """The source as arrays for a cache."""
    return {
        "images": source.images,
        "label": source.label.astype(np.int32),
        "names": np.array(source.names, dtype=np.str_),
        "group": np.array(source.group, dtype=np.str_),
    }


def from_arrays(arrays: Arrays) -> Source:
    """The inverse of ``to_arrays``."""
    return Source(arrays["images"], arrays["label"], tuple(arrays["names"].tolist()), tuple(arrays["group"].tolist()))
