"""Protocols: what is seen when (classes, or examples of fixed classes), and what a test episode is.

A number without its protocol means nothing.
"""

import dataclasses
import logging
from collections.abc import Callable

import numpy as np

from metarep_jax.data.class_splits import (
    Classes,
    ClassSplit,
    by_script,
    classes_of_parts,
    corpus_parts,
    fixed_sizes,
    lake,
    random_split,
    text_folds,
    vinyals,
)
from metarep_jax.data.divisions import (
    PARTS,
    UNLABELLED,
    Division,
    Labelled,
    check_labelled,
    given_parts,
    share_of_each_class,
    without_classes,
)
from metarep_jax.types import NormMode, Rotations

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A named way to split data and to test.

    Either ``split`` maps ``Classes`` to class numbers of train, val and test, so that test classes are new; or
    ``divide`` splits the examples of classes that stay the same.
    """

    name: str
    description: str
    datasets: tuple[str, ...]  # names of data sets it is for; () means any other
    split: Callable[[Classes], ClassSplit] | None = dataclasses.field(default=None, repr=False)
    divide: Callable[[Labelled], Division] | None = dataclasses.field(default=None, repr=False)
    any_classes: bool = False
    """Whether it fits any data with classes, beside ``datasets``."""
    train_rotations: Rotations = "none"
    test_rotations: Rotations = "none"
    ways: tuple[int, ...] = (5, 20)
    """Classes of a test episode; with ``shots`` the columns of the protocol's table."""
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
    if dataset not in CORPORA:
        fitting |= {p.name: p for p in PROTOCOLS if p.any_classes}
    if name is None:
        return next(iter(fitting.values()))
    if name in fitting:
        return fitting[name]
    others = {p.name: p for p in PROTOCOLS}
    of = f" is for {' and '.join(others[name].datasets) or 'other data'}" if name in others else " is not known"
    raise ValueError(f"the protocol {name!r}{of}; protocols that fit {dataset!r}: {', '.join(fitting)}")


def divide(protocol: Protocol, examples: Labelled) -> Division:
    """Which examples are of which part, and their classes there, by the protocol.

    Raises:
      ValueError: for examples that the protocol does not fit.
      FileNotFoundError: for missing files of a published split.
    """
    if protocol.divide is not None:
        return protocol.divide(examples)
    if protocol.split is None:
        raise ValueError(f"the protocol {protocol.name!r} has neither a split of classes nor one of examples")
    check_labelled(protocol.name, examples)
    there = parts_of_classes(examples)
    split = protocol.split(Classes(examples.names, examples.group, examples.seed, examples.data_dir, there))
    part, number = (np.full(len(examples.names), -1, np.int32) for _ in range(2))
    for p, classes in enumerate(split):
        part[classes], number[classes] = p, np.arange(len(classes))
    names = {name: tuple(examples.names[c] for c in classes) for name, classes in zip(PARTS, split)}
    return Division(part[examples.label], number[examples.label], names, fixed_classes=False, labelled=True)


def protocol_of_parts(examples: Labelled, where: str) -> Protocol | None:
    """The protocol that the given parts mean, if there are any: ``given-parts`` where they hold the same classes (or
    training examples have none), ``classes-of-parts`` where no two share a class; logged, with the other meaning.

    Raises:
      ValueError: when they share some classes and not others; names both meanings.
    """
    if examples.part is None:
        return None
    named = {protocol.name: protocol for protocol in PROTOCOLS}
    sizes = ", ".join(f"{PARTS[p]} {count}" for p, count in enumerate(np.bincount(examples.part, minlength=3)) if count)
    there = [set(np.unique(examples.label[examples.part == p]).tolist()) for p in range(len(PARTS))]
    train, others = there[0], there[1] | there[2]
    if UNLABELLED in {examples.names[c] for c in train}:
        log.info("%s: parts as the folders give them (%s); training examples have no classes", where, sizes)
        return named["given-parts"]
    if others <= train:
        log.info(
            "%s: %d fixed classes in parts as the folders give them (%s), that is --data.protocol given-parts; for "
            "few-shot learning on classes that training does not see, give --data.protocol random-classes, which joins "
            "the parts and splits the classes", where, len(train), sizes,
        )  # fmt: skip
        return named["given-parts"]
    if all(len(parts) == 1 for parts in parts_of_classes(examples)):
        log.info(
            "%s: each part has classes of its own, so that test classes are new ones (%s), that is --data.protocol "
            "classes-of-parts; for fixed classes, give --data.protocol share-of-each-class", where, sizes,
        )  # fmt: skip
        return named["classes-of-parts"]
    alone = sorted(examples.names[c] for c in others - train)
    raise ValueError(
        f"{where}: {len(others & train)} classes of the parts for validation and testing are training classes too, and "
        f"{len(alone)} are not, the first is {alone[0]}. For fixed classes, every class must be in train; or give "
        "--data.protocol random-classes (few-shot: joins the parts and splits the classes) or share-of-each-class "
        "(fixed classes: joins the parts and splits each class's examples)"
    )


def parts_of_classes(examples: Labelled) -> list[list[int]]:
    """Of each class, the given parts that have examples of it; [] where no parts are given."""
    if examples.part is None:
        return []
    present = np.zeros((len(examples.names), len(PARTS)), bool)
    present[examples.label, examples.part] = True
    return [np.flatnonzero(row).tolist() for row in present]


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
    Protocol(
        "given-parts",
        "the same classes in training and testing, with examples in the parts that the data come in",
        (),
        divide=given_parts,
    ),
    Protocol(
        "share-of-each-class",
        "the same classes in training and testing; of each class's examples a share (data.held_out) for validation and "
        "as many for testing, by a shuffle with data.split_seed",
        (),
        divide=share_of_each_class,
        any_classes=True,
    ),
    Protocol(
        "classes-of-parts",
        "classes split as the data's own parts have them: test classes are not seen in training",
        (),
        classes_of_parts,
    ),
    Protocol(
        "unlabelled",
        "examples without classes; one in ten is held out, by a shuffle with data.split_seed",
        (),
        divide=without_classes,
    ),
)
