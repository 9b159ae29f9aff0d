"""Running text: WikiText-2, the Brown corpus, any .txt; as lines of the parts for training, validation and testing."""

import logging
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from metarep_jax.data.class_folders import part_in
from metarep_jax.data.text.text_files import decode_utf8, find_folder, read_utf8
from metarep_jax.data.walk import ARCHIVES, DataFile, advice_on, walk_files

log = logging.getLogger(__name__)
Parts = dict[str, list[str]]  # lines of "train", "val" and "test"; a part may be missing
HELD = 10  # of a corpus without parts, every tenth document is for testing; of a single one, its last tenth
WIKITEXT = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
BROWN_FILE = re.compile(r"(.*/)?c[a-r]\d\d")  # brown/ca01 … brown/cr09


def read_wikitext2(data_dir: Path | None) -> Parts:
    """WikiText-2 (Merity et al. 2016, https://arxiv.org/abs/1609.07843) in its parts.

    Without its training part, its validation part is for training, which is said.
    """
    places = ("text/wikitext2", "wikitext2", "wikitext-2", ".")
    folder = find_folder(data_dir, "WikiText-2", places, (WIKITEXT["val"], WIKITEXT["test"]))
    parts = {
        part: [plain_wikitext(line) for line in read_utf8(folder / file).splitlines()]
        for part, file in WIKITEXT.items()
        if (folder / file).is_file()
    }
    if "train" not in parts:
        log.info("%s has no train.txt: WikiText-2's validation part is used for training", folder)
        parts["train"] = parts.pop("val")
    return parts


def read_brown(data_dir: Path | None) -> Parts:
    """The Brown corpus (Francis & Kučera 1979) out of ``brown.zip``, its files of ``word/tag`` parted in ten."""
    file = find_folder(data_dir, "the Brown corpus", ("text/brown", "brown", "."), ("brown.zip",)) / "brown.zip"
    try:
        with zipfile.ZipFile(file) as archive:
            names = sorted(name for name in archive.namelist() if BROWN_FILE.fullmatch(name))
            texts = [decode_utf8(archive.read(name), f"{file}/{name}") for name in names]
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}); get it again") from error
    return held_out([[without_tags(line) for line in text.splitlines()] for text in texts], str(file))


def read_plain(data_dir: Path | None) -> Parts:
    """A .txt file, or all of those below a folder.

    A file is of the part that a whole word of its name says, or else of the folder that it lies in: train or training,
    val, valid, validation or dev, test or testing; all others are for training, and parted in ten where none is for
    testing. What is of which part is logged.

    Raises:
      FileNotFoundError, ValueError: as ``walk_files``; and when no file is for training.
    """
    wanted = "a .txt file or a folder of them (train.txt, test.txt; or train/1.txt, test/2.txt)"
    if data_dir is not None and data_dir.is_file() and data_dir.suffix.lower() not in ARCHIVES:
        if advice := advice_on(data_dir.suffix):
            raise ValueError(f"{data_dir} is no plain text, wanted is {wanted}; {advice}")
        return held_out([read_utf8(data_dir).splitlines()], str(data_dir))
    walk = walk_files(data_dir, (".txt",), ".txt files", wanted)
    parts: dict[str, list[DataFile]] = {}
    for file in walk.files:
        parts.setdefault(part_of_file(file), []).append(file)
    for part, files in sorted(parts.items(), key=lambda item: item[0] != "train"):
        shown = ", ".join(file.name for file in files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
        log.info("%s: part %s: %s", data_dir, part, shown)
    if "train" not in parts:
        raise ValueError(f"{data_dir} holds no text for training: all files are named as of {' and '.join(parts)}")
    documents = {part: [read_utf8(file.path).splitlines() for file in files] for part, files in parts.items()}
    if "test" not in documents:
        log.info("%s: no file is named as for testing; a tenth of the training text is held out", data_dir)
        return held_out(documents.pop("train"), str(data_dir)) | _concatenated(documents)
    return _concatenated(documents)


def part_of_file(file: DataFile) -> str:
    """The part that the file's name says, or else the innermost of its folders that says one; "train" without any."""
    names = [file.path.stem, *reversed(file.folder.split("/"))]
    return next((part for name in names if (part := part_in(name))), "train")


def held_out(documents: Sequence[list[str]], what: str) -> Parts:
    """Every tenth document for testing, or the last one of fewer than ten; of a single document its last tenth.

    Raises:
      ValueError: when there is too little text for two parts; ``what`` names it.
    """
    if len(documents) == 1:
        cut = len(documents[0]) - len(documents[0]) // HELD
        documents = [documents[0][:cut], documents[0][cut:]]
    numbers = set(range(HELD - 1, len(documents), HELD)) or {len(documents) - 1}
    parts = _concatenated(
        {
            "train": [document for i, document in enumerate(documents) if i not in numbers],
            "test": [document for i, document in enumerate(documents) if i in numbers],
        }
    )
    for part, lines in parts.items():
        if not any(line.strip() for line in lines):
            raise ValueError(f"{what} holds too little text: its part for {part} would be empty")
    return parts


def plain_wikitext(line: str) -> str:
    """A line without the marks that WikiText puts round hyphens, commas and points in words and numbers."""
    return re.sub(r" @(.)@ ", r"\1", line).replace("<unk>", "[UNK]")


def without_tags(line: str) -> str:
    """``The/at jury/nn said/vbd`` → ``The jury said``."""
    return " ".join(word.rpartition("/")[0] for word in line.split())


def _concatenated(documents: dict[str, list[list[str]]]) -> Parts:
    return {part: [line for document in each for line in document] for part, each in documents.items()}
