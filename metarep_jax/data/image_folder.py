"""Images in folders of any depth: the folder that directly holds images is their class."""

import logging
import os
from pathlib import Path

import numpy as np

from metarep_jax.data.cache import digest
from metarep_jax.data.records import Records

log = logging.getLogger(__name__)


def list_image_folder(root: Path | None) -> Records:
    """The images under ``root``; a class's name is its folder's path below ``root``, with slashes.

    Files whose ending is not of a format that Pillow reads are passed over, as is what is hidden.

    Raises:
      FileNotFoundError: when no folder is given, or it does not exist.
      ValueError: when it holds no images, or images that lie in no folder of their own.
    """
    wanted = "a folder with one folder of images a class, such as DIR/cat/1.jpg, DIR/dog/7.png"
    if root is None:
        raise FileNotFoundError(f"data.name folder needs {wanted}; give it by --data.data-dir DIR or METAREP_DATA")
    if not root.is_dir():
        raise FileNotFoundError(f"the data folder {root} does not exist; wanted is {wanted} (--data.data-dir DIR)")
    found, others = _walk(root)
    files = [file for folder in found.values() for file, _, _ in folder]
    if not files:
        seen = f"; it holds {others} other files" if others else ""
        raise ValueError(f"the data folder {root} holds no images that Pillow reads{seen}; wanted is {wanted}")
    if "." in found:
        raise ValueError(
            f"{len(found['.'])} images lie in {root} itself, the first is {found['.'][0][0].name}, and have no class; "
            f"wanted is {wanted}"
        )
    if others:
        log.info("%s: %d files that are not images are passed over", root, others)
    return Records(
        files=files,
        label=np.repeat(np.arange(len(found), dtype=np.int32), [len(folder) for folder in found.values()]),
        names=tuple(found),
        group=("",) * len(found),
        what=str(root),
        key=digest((name, file.name, size, time) for name, folder in found.items() for file, size, time in folder),
    )


def _walk(root: Path) -> tuple[dict[str, list[tuple[Path, int, int]]], int]:
    """Images with size and time of change by class, in order of names, and the number of other files."""
    from PIL import Image

    endings = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    found: dict[str, list[tuple[Path, int, int]]] = {}
    others, seen = 0, set()
    for place, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # links in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        shown = [name for name in names if not name.startswith(".")]
        images = sorted(name for name in shown if os.path.splitext(name)[1].lower() in endings)
        others += len(shown) - len(images)
        if images:
            files = [Path(place, name) for name in images]
            facts = [os.stat(file) for file in files]
            found[Path(place).relative_to(root).as_posix()] = [
                (file, fact.st_size, fact.st_mtime_ns) for file, fact in zip(files, facts)
            ]
    return dict(sorted(found.items())), others
