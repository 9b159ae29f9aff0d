"""What folders say of the files in them: their class, their part (training, validation, testing), or neither."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from metarep_jax.data.divisions import PARTS, UNLABELLED

PART_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class ClassFolders(NamedTuple):
    """Classes and parts of files, as their folders name them. ``part`` indexes PARTS; None: no parts are given."""

    names: tuple[str, ...]  # of the classes; files without a class have the class UNLABELLED
    label: Int[np.ndarray, " n"]
    part: Int[np.ndarray, " n"] | None


def part_in(name: str) -> str | None:
    """The part that a word of a name says, whole words only: "dev-clean" is of "val", "testament" of none."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((PART_WORDS[word] for word in words if word in PART_WORDS), None)


def read_class_folders(paths: Sequence[str], root: Any, kind: str, wanted: str) -> ClassFolders:
    """Classes and parts of files by the folders that they lie in.

    ``CLASS/…`` at any depth gives classes; ``train/CLASS/…``, ``val/CLASS/…``, ``test/CLASS/…`` gives parts beside them
    (or training, valid, validation, dev, testing, in either case). Files of a folder or a part that has no folders of
    classes have no class.

    Args:
      paths: of the files, below ``root`` and with slashes.
      root, kind, wanted: for messages: the folder, what files hold (in the plural), what the folder should look like.

    Raises:
      ValueError: for files with and without a class side by side, parts beside folders that are none, or parts
        without one for training.
    """
    folders = [path.rpartition("/")[0] for path in paths]
    tops = dict.fromkeys(folder.split("/")[0] for folder in folders)
    of_top = {top: PART_WORDS[top.lower()] for top in tops if top.lower() in PART_WORDS}
    if len({*of_top.values()}) < 2:
        _check_alike(paths, folders, str(root), kind, wanted)
        return ClassFolders(*_numbered(folders), None)
    if others := [top for top in tops if top not in of_top]:
        named = f"{kind} in {root} itself" if others == [""] else ", ".join(filter(None, others))
        raise ValueError(
            f"{root} has the parts {', '.join(sorted(of_top))} and, beside them, {named}; move one or the other away"
        )
    if "train" not in of_top.values():
        raise ValueError(f"{root} has the parts {', '.join(sorted(of_top))}, and none for training; name one train")
    own = [folder.partition("/")[2] for folder in folders]
    for top in tops:
        of_part = [i for i, folder in enumerate(folders) if folder.split("/")[0] == top]
        _check_alike([paths[i] for i in of_part], [own[i] for i in of_part], f"{root}/{top}", kind, wanted)
    part = np.array([PARTS.index(of_top[folder.split("/")[0]]) for folder in folders], np.int32)
    if all(folder for folder, p in zip(own, part) if p == 0) and not all(own):
        without = next(path for path, folder in zip(paths, own) if not folder)
        raise ValueError(
            f"the training part of {root} has folders of classes and {without} lies in none; sort its part by classes "
            "too, or move it away"
        )
    return ClassFolders(*_numbered(own), part)


def _numbered(folders: Sequence[str]) -> tuple[tuple[str, ...], Int[np.ndarray, " n"]]:
    names, label = np.unique([folder or UNLABELLED for folder in folders], return_inverse=True)
    return tuple(names.tolist()), label.reshape(-1).astype(np.int32)


def _check_alike(paths: Sequence[str], folders: Sequence[str], root: str, kind: str, wanted: str) -> None:
    loose = [path for path, folder in zip(paths, folders) if not folder]
    if 0 < len(loose) < len(paths):
        raise ValueError(
            f"{len(loose)} {kind} lie in {root} itself, the first is {loose[0].rpartition('/')[2]}, and have no class, "
            f"the other {len(paths) - len(loose)} lie in folders of classes; wanted is {wanted}"
        )
