"""Files written whole or not at all: a reader, or a kill, finds the old content or the new one."""

import os
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


@contextmanager
def atomic_open(path: Path | str) -> Iterator[BinaryIO]:
    """Opens a binary file that replaces ``path`` when the block ends, and is deleted if the block raises."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # two processes may write the same file
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
