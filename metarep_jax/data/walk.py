"""One walk through a folder of data, for images, recordings and texts alike: what counts as a file of it."""

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_ARRAYS = "read arrays in Python and give them to metarep_jax.data.splits_from_arrays"
ADVICE = {  # what to do about files that cannot be read, by ending
    **dict.fromkeys((".heic", ".heif"), "convert HEIC to JPEG, such as by `heif-convert 1.heic 1.jpg`"),
    **dict.fromkeys((".h5", ".hdf5", ".npz", ".npy", ".mat", ".pkl", ".parquet"), _ARRAYS),
    **dict.fromkeys((".csv", ".tsv", ".json", ".jsonl"), _ARRAYS.replace("arrays", "tables", 1)),
    **dict.fromkeys((".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus"), "convert sound, by `ffmpeg -i 1.mp3 1.wav`"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv"), "take images out of videos, by `ffmpeg -i 1.mp4 1/%05d.jpg`"),
    **dict.fromkeys((".pdf", ".docx", ".doc", ".odt", ".epub", ".html", ".md"), "save documents as plain text, .txt"),
    **dict.fromkeys(ARCHIVES, "unpack archives"),
}


class DataFile(NamedTuple):
    """A file of the data, and enough to notice that it is another one than before."""

    path: Path
    folder: str  # below the root, with slashes; "." for the root itself
    size: int
    changed: int  # time of the last change, in nanoseconds

    @property
    def name(self) -> str:
        """The path below the root, with slashes."""
        return self.path.name if self.folder == "." else f"{self.folder}/{self.path.name}"


class Walk(NamedTuple):
    """Files of the wanted endings in order of folder and name, and what was passed over."""

    root: Path
    files: list[DataFile]
    passed_over: dict[str, Counter[str]]  # folder -> ending -> number of files; hidden ones are not counted
    broken_links: list[str]  # below the root


def walk_files(root: Path | None, endings: Collection[str], kind: str, wanted: str) -> Walk:
    """The files below ``root`` with one of ``endings``, in small letters; files' may be of either case.

    Links are followed, but not in circles; what is hidden (a leading point, ``__MACOSX``) is not looked at.

    Args:
      root: a folder, or None where the user gave none.
      endings: such as (".wav",).
      kind: what the files hold, in the plural, for messages: "images".
      wanted: a sentence's end that says what the folder should look like.

    Raises:
      FileNotFoundError: when there is no such folder.
      ValueError: for an archive or another file in place of a folder, or a folder without any such file; says what
        there is and what to do.
    """
    if root is None:
        raise FileNotFoundError(f"{kind} need {wanted}; give it by --data.data-dir DIR or METAREP_DATA")
    if root.is_symlink() and not root.exists():
        raise FileNotFoundError(f"the data folder {root} is a link to {os.readlink(root)}, which does not exist")
    if not root.exists():
        raise FileNotFoundError(f"the data folder {root} does not exist; wanted is {wanted} (--data.data-dir DIR)")
    if not root.is_dir():
        raise ValueError(f"{root} is a file, wanted is {wanted}; {advice_on(root.suffix) or 'give the folder'}")
    walk = _walk(root, frozenset(endings))
    if not walk.files:
        seen = sum(walk.passed_over.values(), Counter())
        holds = f"; it holds {_counted(seen)}" if seen else ""
        what_to_do = "".join(f"; {advice}" for advice in dict.fromkeys(map(advice_on, seen)) if advice)
        links = f"; {_links(walk.broken_links)}" if walk.broken_links else ""
        raise ValueError(f"the data folder {root} holds no {kind}{holds}{links}; wanted is {wanted}{what_to_do}")
    report(walk, kind)
    return walk


def advice_on(ending: str) -> str:
    """What a user can do about a file of that ending, or ""."""
    return ADVICE.get(ending.lower(), "")


def report(walk: Walk, kind: str) -> None:
    """Logs what was passed over, and warns of folders that have files but none that count."""
    if walk.passed_over:
        seen = sum(walk.passed_over.values(), Counter())
        log.info("%s: %d files that are not %s are passed over: %s", walk.root, seen.total(), kind, _counted(seen))
    kept = {file.folder for file in walk.files}
    lost = {folder: seen for folder, seen in walk.passed_over.items() if not _holds_any(folder, kept)}
    if lost:
        named = ", ".join(f"{folder} ({_counted(seen)})" for folder, seen in sorted(lost.items()))
        what_to_do = "".join(
            f"; {a}" for a in dict.fromkeys(advice_on(end) for seen in lost.values() for end in seen) if a
        )
        log.warning("%s: folders without any %s are no classes: %s%s", walk.root, kind, named, what_to_do)
    if walk.broken_links:
        log.warning("%s: %s", walk.root, _links(walk.broken_links))


def _walk(root: Path, endings: Collection[str]) -> Walk:
    files: list[DataFile] = []
    passed_over: dict[str, Counter[str]] = {}
    broken: list[str] = []
    around: dict[str, tuple[str, ...]] = {}  # real paths of the folders that a folder lies in, itself included
    for place, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        outer = around.get(os.path.dirname(place), ()) if place != str(root) else ()
        if real in outer:  # links in a circle
            folders.clear()
            continue
        around[place] = (*outer, real)
        folders[:] = sorted(folder for folder in folders if not _hidden(folder))
        below = Path(place).relative_to(root).as_posix()
        for name in sorted(name for name in names if not _hidden(name)):
            path, ending = Path(place, name), os.path.splitext(name)[1].lower()
            try:
                facts = path.stat()
            except OSError:  # a link to nothing, or in a circle
                broken.append((Path(below) / name).as_posix())
                continue
            if ending in endings:
                files.append(DataFile(path, below, facts.st_size, facts.st_mtime_ns))
            else:
                passed_over.setdefault(below, Counter())[ending] += 1
    return Walk(root, sorted(files, key=lambda file: (file.folder, file.path.name)), passed_over, broken)


def _refuse(error: OSError) -> None:
    raise ValueError(
        f"the folder {error.filename} cannot be read ({error.strerror}); give it read permission"
    ) from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _holds_any(folder: str, kept: Collection[str]) -> bool:
    return folder == "." or any(other == folder or other.startswith(f"{folder}/") for other in kept)


def _counted(endings: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in sorted(endings.items()))


def _links(broken: list[str]) -> str:
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    return f"links to files that do not exist are passed over: {', '.join(broken[:3])}{more}; mend or remove them"
