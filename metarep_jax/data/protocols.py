"""Protocols: which classes are seen when, and what a test episode is. A number without its protocol means nothing."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarep_jax.data.text_files import find_folder, read_utf8
from metarep_jax.types import NormMode, Rotations

PARTS = ("train", "val", "test")


class Classes(NamedTuple):
    """What a split is made from: the classes' names and groups, a seed, and where split files may lie."""

    names: Sequence[str]
    group: Sequence[str]
    seed: int
    data_dir: Path | None


ClassSplit = tuple[list[int], list[int], list[int]]  # class numbers of train, val, test


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A named way to split classes and to test; ``split`` maps ``Classes`` to class numbers of train, val and test."""

    name: str
    description: str
    datasets: tuple[str, ...]  # names of data sets it is for; () means any other
    split: Callable[[Classes], ClassSplit] = dataclasses.field(repr=False)
    train_rotations: Rotations = "none"
    test_rotations: Rotations = "none"
    ways: tuple[int, ...] = (5, 20)
    shots: tuple[int, ...] = (1, 5)
    query: int = 15
    """Queries a class, at most what the smallest class leaves."""
    norm: NormMode | None = None
    """Whose statistics batch norm uses at test, where the protocol's source fixes it; None: the learner's own."""
    episodes: int = 2000


def find_protocol(name: str | None, dataset: str) -> Protocol:
    """The protocol of that name, or the default of ``dataset``.

    Raises:
      ValueError: for an unknown one, or one of another data set; lists those that fit.
    """
    fitting = {p.name: p for p in PROTOCOLS if dataset in p.datasets} or {
        p.name: p for p in PROTOCOLS if not p.datasets
    }
    if name is None:
        return next(iter(fitting.values()))
    if name in fitting:
        return fitting[name]
    others = {p.name: p for p in PROTOCOLS}
    of = f" is for {' and '.join(others[name].datasets) or 'other data'}" if name in others else " is not known"
    raise ValueError(f"the protocol {name!r}{of}; protocols that fit {dataset!r}: {', '.join(fitting)}")


def shuffled(classes: Classes, sizes: Sequence[int]) -> ClassSplit:
    """The first ``sizes`` classes of a seeded shuffle of the names in order."""
    by_name = sorted(range(len(classes.names)), key=lambda c: classes.names[c])
    order = np.random.default_rng(classes.seed).permutation(len(by_name))
    bounds = np.cumsum([0, *sizes])
    train, val, test = (sorted(by_name[i] for i in order[a:b]) for a, b in itertools.pairwise(bounds))
    return train, val, test


def random_split(classes: Classes) -> ClassSplit:
    """60, 20 and 20% of the classes, by a seeded shuffle; at least one for testing."""
    count = len(classes.names)
    if count < 2:
        raise ValueError(
            f"random-classes needs 2 classes or more, to train on some and test on others; there are {count}"
        )
    held = max(round(0.2 * count), 1)
    val = held if count > 2 * held else 0
    return shuffled(classes, (count - held - val, val, held))


def fixed_sizes(*sizes: int) -> Callable[[Classes], ClassSplit]:
    """A seeded shuffle into splits of these sizes, which must be all of the classes."""

    def split(classes: Classes) -> ClassSplit:
        _expect(len(classes.names) == sum(sizes), f"{sum(sizes)} classes", f"{len(classes.names)}")
        return shuffled(classes, sizes)

    return split


def by_script(classes: Classes) -> ClassSplit:
    """Armenian and Georgian letters for testing, Greek ones for validation, all else for training."""
    part = {"ARMENIAN": 2, "GEORGIAN": 2, "GREEK": 1}
    found: ClassSplit = ([], [], [])
    for c, script in enumerate(classes.group):
        found[part.get(script, 0)].append(c)
    return found


def lake(classes: Classes) -> ClassSplit:
    """The background set for training, the evaluation set for testing."""
    train = [c for c, group in enumerate(classes.group) if group == "background"]
    test = [c for c, group in enumerate(classes.group) if group == "evaluation"]
    _expect((len(train), len(test)) == (964, 659), "964 background and 659 evaluation", f"{len(train)} and {len(test)}")
    return train, [], test


def vinyals(classes: Classes) -> ClassSplit:
    """The split of the files ``vinyals_{train,val,test}.txt``, lines ``ALPHABET/characterNN[/rotRRR]``."""
    roots = [] if classes.data_dir is None else [classes.data_dir / "omniglot" / "splits", classes.data_dir / "splits"]
    files = [f"vinyals_{part}.txt" for part in PARTS]
    folder = next((root for root in roots if all((root / file).is_file() for file in files)), None)
    if folder is None:
        looked = " or ".join(map(str, roots)) or "DATA_DIR/omniglot/splits (no data folder is given)"
        raise FileNotFoundError(
            f"Vinyals' split needs the files {', '.join(files)} in {looked}; they hold one "
            "ALPHABET/characterNN/rotRRR a line, as the code of Prototypical Networks has "
            "them. Or choose the protocol maml, reptile or lake"
        )
    found = class_lists([folder / file for file in files], classes.names, lambda line: line.rsplit("/rot", 1)[0])
    sizes = tuple(map(len, found))
    _expect(sizes == (1028, 172, 423), f"1028, 172 and 423 classes in {folder}", f"{sizes}")
    return found


def text_folds(folder: str, fold: int, name: str) -> Callable[[Classes], ClassSplit]:
    """One of the five splits of a data set's intents in the files ``FOLDER/0N/labels.{train,valid,test}.txt``."""

    def split(classes: Classes) -> ClassSplit:
        files = tuple(f"labels.{part}.txt" for part in ("train", "valid", "test"))
        places = (f"text/folds/{folder}/0{fold}", f"folds/{folder}/0{fold}")
        place = find_folder(classes.data_dir, f"fold {fold} of {name} (Dopierre et al. 2021)", places, files)
        return class_lists([place / file for file in files], classes.names)

    return split


def corpus_parts(classes: Classes) -> ClassSplit:
    """The parts of running text as they are."""
    train, val, test = ([c for c, group in enumerate(classes.group) if group == part] for part in PARTS)
    return train, val, test


def class_lists(
    files: Sequence[Path], known: Sequence[str], name_in: Callable[[str], str] = lambda line: line
) -> ClassSplit:
    """The classes that each of three files names, one a line (``name_in`` finds the name); none is in two files."""
    number = {name: c for c, name in enumerate(known)}
    found = []
    for file in files:
        names = dict.fromkeys(name_in(line.strip()) for line in read_utf8(file).splitlines() if line.strip())
        unknown = [name for name in names if name not in number]
        _expect(not unknown, f"classes of the data set in {file}", f"{len(unknown)} others, the first {unknown[:1]}")
        found.append([number[name] for name in names])
    train, val, test = found
    once = len({*train, *val, *test}) == len(train) + len(val) + len(test)
    _expect(once, f"no class in two files of {files[0].parent}", "some")
    return train, val, test


def _expect(holds: bool, wanted: str, got: str) -> None:
    if not holds:
        raise ValueError(f"the protocol's split expects {wanted}, got {got}")


def _intents(dataset: str, folder: str, name: str) -> list[Protocol]:
    described = f"{name}, classes split as in fold %d of 5 of Dopierre et al. 2021, 5 queries a class"
    return [
        Protocol(
            f"{dataset}-fold{fold}",
            described % fold,
            (dataset,),
            text_folds(folder, fold, name),
            ways=(5,),
            query=5,
            episodes=600,
        )
        for fold in range(1, 6)
    ]


OMNIGLOT = ("omniglot",)
CORPORA = ("text", "wikitext2", "brown")
PROTOCOLS = (
    Protocol(
        "glyphs",
        "letters of DejaVu fonts, classes split by script: tested on Armenian and Georgian, validated on Greek, "
        "trained on the others and on letters that look the same in several scripts",
        ("glyphs",),
        by_script,
    ),
    Protocol(
        "vinyals-no-rotations",
        "Omniglot, 1028/172/423 classes as in Vinyals et al. 2016, no rotations",
        OMNIGLOT,
        vinyals,
    ),
    Protocol(
        "vinyals",
        "Omniglot, 1028/172/423 classes as in Vinyals et al. 2016, each quarter turn a class of its own in every split "
        "(Snell et al. 2017)",
        OMNIGLOT,
        vinyals,
        train_rotations="classes",
        test_rotations="classes",
    ),
    Protocol(
        "maml",
        "Omniglot, 1100/100/423 classes at random, each class of a task turned by a random quarter turn, also at test; "
        "transductive batch norm (Finn et al. 2017)",
        OMNIGLOT,
        fixed_sizes(1100, 100, 423),
        train_rotations="random",
        test_rotations="random",
        norm="transductive",
    ),
    Protocol(
        "reptile",
        "Omniglot, 1200/-/423 classes at random, quarter turns as extra classes at training only (Nichol et al. 2018); "
        "each query classified by itself with the support set",
        OMNIGLOT,
        fixed_sizes(1200, 0, 423),
        train_rotations="classes",
        norm="one_query",
    ),
    Protocol(
        "lake",
        "Omniglot, 964 background classes for training, 659 evaluation classes for testing, no rotations "
        "(Lake et al. 2015)",
        OMNIGLOT,
        lake,
    ),
    *_intents("banking77", "BANKING77", "BANKING77"),
    *_intents("clinc150", "OOS", "CLINC150"),
    Protocol("corpus", "running text in its own parts for training, validation and testing", CORPORA, corpus_parts),
    Protocol(
        "synthetic-speech",
        "synthetic words, not speech; 60/20/20% of them for training, validation and testing, by a shuffle with "
        "data.split_seed",
        ("synthetic-speech",),
        random_split,
        ways=(5,),
    ),
    Protocol(
        "random-classes",
        "60/20/20% of the classes for training, validation and testing, by a shuffle of the names with data.split_seed",
        (),
        random_split,
    ),
)
