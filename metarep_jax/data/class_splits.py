"""Splits of classes: seeded shuffles, and the published ones that come in files."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarep_jax.data.divisions import PARTS
from metarep_jax.data.text.text_files import find_folder, read_utf8


class Classes(NamedTuple):
    """What a split is made from: the classes' names and groups, a seed, and where split files may lie."""

    names: Sequence[str]
    group: Sequence[str]
    seed: int
    data_dir: Path | None
    parts: Sequence[Sequence[int]] = ()  # of each class: the given parts that have examples of it; see Labelled


ClassSplit = tuple[list[int], list[int], list[int]]  # class numbers of train, val, test


def classes_of_parts(classes: Classes) -> ClassSplit:
    """The classes of each given part, which must differ."""
    if not classes.parts:
        raise ValueError("classes-of-parts needs folders for parts, such as DIR/train/CLASS and DIR/test/CLASS")
    several = [name for name, parts in zip(classes.names, classes.parts) if len(parts) > 1]
    if several:
        raise ValueError(
            f"classes-of-parts needs parts with different classes, and {len(several)} are in several, the first is "
            f"{several[0]}; give --data.protocol given-parts (fixed classes), or random-classes (joins the parts)"
        )
    train, val, test = ([c for c, parts in enumerate(classes.parts) if parts == [p]] for p in range(len(PARTS)))
    return train, val, test


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
            "random-classes needs 2 classes or more, to train on some and test on others, and there is "
            f"{count}; add classes, or give --data.protocol unlabelled to learn features of examples without classes"
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
