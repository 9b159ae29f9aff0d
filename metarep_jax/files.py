"""Files written whole or not at all: a reader, or a kill, finds the old content or the new one."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: Path | str, content: str | bytes) -> None:
    """Writes text (as UTF-8) or bytes to ``path``, in place of what is there; makes its folder.

    Raises:
      OSError: when it cannot be written; what was there before is kept.
    """
    with atomic_open(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_on_disk(place: Path | str, what: str) -> None:
    """Raises ValueError for an address such as ``gs://bucket/run``, which would become a local folder of that name.

    Args:
      place: a path, or what stands for one.
      what: was to be read or written there, such as the flag.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]+:/", str(place)):  # a Path has made one slash of two
        raise ValueError(
            f"{what} {place} is an address, not a folder: object stores are neither read nor written. Give a folder on "
            "a disk, and with several hosts on one that all of them share (such as NFS, Filestore or a mounted bucket)"
        )


@contextmanager
def atomic_open(path: Path | str) -> Iterator[BinaryIO]:
    """Opens a binary file that replaces ``path`` when the block ends, and is deleted if the block raises."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes may write the same file, of hosts that share the disk too, whose process ids may be the same.
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
