"""Divisions of examples into training, validation and testing, where classes are fixed, or there are none."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

PARTS = ("train", "val", "test")
UNLABELLED = "unlabelled"  # the one class of examples without a class
HELD_OUT = 0.1  # of examples without classes


class Labelled(NamedTuple):
    """What a division is made from: examples' classes, the parts that they come in, and a seed."""

    names: tuple[str, ...]  # of the classes
    group: tuple[str, ...]  # of the classes: what a protocol may split by
    label: Int[np.ndarray, " n"]
    part: Int[np.ndarray, " n"] | None = None  # indexes PARTS; None: the data come in no parts
    seed: int = 0
    data_dir: Path | None = None  # where split files may lie
    held_out: float = 0.2  # share of each class's examples for validation, and as many for testing


class Division(NamedTuple):
    """Each example's part, an index of PARTS or −1 for none, and its class, a number among the part's ``names``."""

    part: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    names: dict[str, tuple[str, ...]]  # of "train", "val" and "test"
    fixed_classes: bool  # whether the parts hold the same classes
    labelled: bool  # whether training examples have classes

    def at(self, rows: Int[np.ndarray, " m"]) -> "Division":
        """The division of some of the examples."""
        return self._replace(part=self.part[rows], label=self.label[rows])

    @property
    def groups(self) -> Int[np.ndarray, " n"]:
        """A number for each class in each part."""
        return self.label * (len(PARTS) + 1) + self.part + 1


def given_parts(examples: Labelled) -> Division:
    """The parts that the data come in; without one for testing, that for validation is for testing.

    Training examples may have no classes; those of the other parts then have classes of their own.

    Raises:
      ValueError: when there are no parts, or classes that training examples do not have.
    """
    if examples.part is None:
        raise ValueError(
            "given-parts needs folders for parts, such as DIR/train/CLASS, DIR/val/CLASS and DIR/test/CLASS; give "
            "--data.protocol share-of-each-class to split each class's examples at random"
        )
    part = np.where(examples.part == 1, 2, examples.part) if 2 not in examples.part else examples.part
    there = [np.unique(examples.label[part == p]) for p in range(len(PARTS))]
    labelled = UNLABELLED not in {examples.names[c] for c in there[0]}
    if labelled:
        missing = np.setdiff1d(np.concatenate(there[1:]), there[0])
        if len(missing):
            raise ValueError(
                f"given-parts has fixed classes, and {len(missing)} classes of val and test are not in train, the "
                f"first is {examples.names[missing[0]]}; give --data.protocol random-classes to split the classes "
                "for few-shot learning"
            )
        there = [there[0] if len(own) else own for own in there]
    number = np.full((len(PARTS), len(examples.names)), -1, np.int32)
    for p, own in enumerate(there):
        number[p, own] = np.arange(len(own))
    names = {name: tuple(examples.names[c] for c in own) for name, own in zip(PARTS, there)}
    return Division(part.astype(np.int32), number[part, examples.label], names, labelled, labelled)


def share_of_each_class(examples: Labelled) -> Division:
    """``held_out`` of each class's examples for validation and as many for testing, by a seeded shuffle.

    At least one of each, but for classes of two examples, which have none for validation.

    Raises:
      ValueError: for examples without classes, or a class of a single example (names it).
    """
    check_labelled("share-of-each-class", examples)
    count = np.bincount(examples.label, minlength=len(examples.names))
    if len(single := np.flatnonzero(count == 1)):
        more = f" (and {len(single) - 1} more classes)" if len(single) > 1 else ""
        raise ValueError(
            f"share-of-each-class needs 2 examples a class or more, to train on some and test on others; the class "
            f"{examples.names[single[0]]}{more} has 1: add examples or remove it"
        )
    most = np.maximum((count - 1) // 2, 1)  # leaves one to train on
    held = np.clip(np.round(examples.held_out * count).astype(int), 1, most)[examples.label]
    val_held = np.where(count[examples.label] < 3, 0, held)  # two examples: one to train on, one to test on
    place = _shuffled_places(examples.label, examples.seed)
    part = np.where(place < held, 2, np.where(place < held + val_held, 1, 0)).astype(np.int32)
    names = {name: examples.names if (part == p).any() else () for p, name in enumerate(PARTS)}
    return Division(part, examples.label.astype(np.int32), names, fixed_classes=True, labelled=True)


def without_classes(examples: Labelled) -> Division:
    """Examples without classes, or as if they had none: given parts stay, else a tenth is held out for testing."""
    label = np.zeros(len(examples.label), np.int32)
    if examples.part is not None:
        part = examples.part.astype(np.int32)
    else:
        held = max(round(HELD_OUT * len(label)), 1) if len(label) > 1 else 0
        part = np.where(_shuffled_places(label, examples.seed) < held, 2, 0).astype(np.int32)
    names = {name: (UNLABELLED,) if (part == p).any() else () for p, name in enumerate(PARTS)}
    return Division(part, label, names, fixed_classes=False, labelled=False)


def check_labelled(protocol: str, examples: Labelled) -> None:
    """Raises ValueError for examples without classes, which ``protocol`` cannot split."""
    if UNLABELLED in examples.names:
        some = "some of the data" if len(examples.names) > 1 else "the data"
        raise ValueError(
            f"{protocol} needs examples with classes, and {some} have none; give --data.protocol "
            f"{'given-parts or ' if examples.part is not None else ''}unlabelled"
        )


def _shuffled_places(label: Shaped[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """Each example's place in a seeded shuffle of its class."""
    order = np.random.default_rng(seed).permutation(len(label))
    by_label = order[np.argsort(label[order], kind="stable")]
    _, start, count = np.unique(label[by_label], return_index=True, return_counts=True)
    place = np.empty(len(label), int)
    place[by_label] = np.arange(len(label)) - np.repeat(start, count)
    return place
