"""Lines of text, from corpora and from sentences with classes, by name."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metarep_jax.data.text.corpora import Parts, read_brown, read_plain, read_wikitext2
from metarep_jax.data.text.text_files import find_folder, read_utf8
from metarep_jax.data.text.tokenizer import TextConfig

PARTS = ("train", "val", "test")
TFDS = "tfds-text:"


class Texts(NamedTuple):
    """Lines, their classes, and what is known of these.

    ``running``: whether lines follow one another, as in a corpus, whose classes are its parts "train", "val" and
    "test"; or each is an example by itself.
    """

    lines: list[str]
    label: Int[np.ndarray, " n"]  # 0 … classes-1
    names: tuple[str, ...]  # of the classes
    group: tuple[str, ...]  # of the classes; see Source
    running: bool
    part: Int[np.ndarray, " n"] | None = None  # of each line; see Source
    tokens: TextConfig = TextConfig()


def read_texts(name: str, data_dir: Path | None, cache_dir: Path) -> Texts:
    """The texts of that name: docstrings, banking77, clinc150, tfds-text:NAME, text, or corpora joined by +, such as
    brown+wikitext2.

    Raises:
      ValueError: for texts that are damaged or not UTF-8 (names the file and the place).
      FileNotFoundError: when files are missing: says which are wanted, and where.
    """
    if name == "docstrings":
        from metarep_jax.data.text.docstrings import load_docstrings

        return load_docstrings(cache_dir)
    if name in SENTENCES:
        return with_classes(SENTENCES[name](data_dir))
    if name.startswith(TFDS):
        from metarep_jax.data.text.tfds_text import tfds_sentences

        return with_classes(tfds_sentences(name.removeprefix(TFDS), data_dir, cache_dir))
    if unknown := [part for part in name.split("+") if part not in CORPORA]:
        raise ValueError(f"{' and '.join(unknown)} cannot be joined by +; there are {', '.join(CORPORA)}")
    return joined([CORPORA[part](data_dir) for part in name.split("+")])


def read_banking77(data_dir: Path | None) -> list[tuple[str, str]]:
    """Sentences and intents of ``train.csv`` and ``test.csv`` (Casanueva et al. 2020,
    https://arxiv.org/abs/2003.04807), which a split by classes makes one set."""
    files = ("train.csv", "test.csv")
    folder = find_folder(data_dir, "BANKING77", ("text/banking77", "banking77", "."), files)
    pairs = []
    for file in files:
        rows = csv.DictReader(io.StringIO(read_utf8(folder / file), newline=""))
        if not {"text", "category"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{folder / file} has the columns {rows.fieldnames}, wanted are text and category")
        pairs += [(row["text"], row["category"]) for row in rows]
    return pairs


def read_clinc150(data_dir: Path | None) -> list[tuple[str, str]]:
    """Sentences and intents of ``data_full.json`` (Larson et al. 2019, https://arxiv.org/abs/1909.02027), all parts
    together, without the sentences that are out of scope."""
    wanted = "data_full.json"
    file = find_folder(data_dir, "CLINC150", ("text/clinc150", "clinc150", "."), (wanted,)) / wanted
    try:
        found = json.loads(read_utf8(file))
        return [(text, intent) for part in PARTS for text, intent in found[part]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged, or not CLINC150's ({error!r}); get it again") from error


def with_classes(pairs: Sequence[tuple[str, str]]) -> Texts:
    """Sentences and their class names as texts; line breaks in a sentence become spaces."""
    names, label = np.unique([name for _, name in pairs], return_inverse=True)
    lines = [" ".join(text.split()) for text, _ in pairs]
    return Texts(lines, label.reshape(-1).astype(np.int32), tuple(names.tolist()), ("",) * len(names), False)


def joined(corpora: Sequence[Parts]) -> Texts:
    """Several corpora as one, part by part; the last one's test part is the test part, and the others' train.

    So ``brown+wikitext2`` trains on all of Brown, and tests on WikiText-2 alone.
    """
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for corpus in corpora[:-1]:
        parts["train"] += [line for part in PARTS for line in corpus.get(part, [])]
    for part in PARTS:
        parts[part] += corpora[-1].get(part, [])
    names = tuple(part for part in PARTS if parts[part])
    label = np.repeat(np.arange(len(names), dtype=np.int32), [len(parts[name]) for name in names])
    return Texts([line for name in names for line in parts[name]], label, names, names, True)


SENTENCES = {"banking77": read_banking77, "clinc150": read_clinc150}
CORPORA = {"wikitext2": read_wikitext2, "brown": read_brown, "text": read_plain}
