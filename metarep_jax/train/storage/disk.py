"""A full disk, noticed before anything is begun where that can be, and said in one way where it cannot."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SPARE_BYTES = 1 << 20  # asked of the disk beyond the arrays' own size
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def explain_full_disk(folder: Path, what: str) -> Iterator[None]:
    """Turns the ways in which a full disk shows itself into one OSError that says so."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if getattr(error, "errno", None) not in _FULL and not any(os.strerror(code) in text for code in _FULL):
            raise
        message = f"{folder} could not be {what}: the disk is full ({text.splitlines()[0][:200]})"
        raise OSError(errno.ENOSPC, f"{message}. What was saved before is kept: free space and start again") from error


def check_space(folder: Path, leaves: dict[str, np.ndarray]) -> None:
    """Raises OSError where the disk has too little space for the arrays."""
    needed = sum(leaf.nbytes for leaf in leaves.values()) + SPARE_BYTES
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed:,} bytes needed, {free:,} free")
