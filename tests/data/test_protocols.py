"""Protocols: sizes of splits, no class in two of them, and what does not fit refused."""

import pytest

from metarep_jax.data import DataConfig, find_protocol, load_splits
from metarep_jax.data.protocols import PROTOCOLS, Classes

NAMES = [f"Alphabet{c % 50:02d}/character{c // 50:02d}" for c in range(1623)]
GROUPS = ["background"] * 964 + ["evaluation"] * 659
SIZES = {
    "vinyals": (1028, 172, 423),
    "vinyals-no-rotations": (1028, 172, 423),
    "maml": (1100, 100, 423),
    "reptile": (1200, 0, 423),
    "lake": (964, 0, 659),
}


@pytest.fixture
def data_dir(tmp_path):
    """A made-up split in the layout of the files of Prototypical Networks' code."""
    folder = tmp_path / "omniglot" / "splits"
    folder.mkdir(parents=True)
    ends = {"train": (0, 1028), "val": (1028, 1200), "test": (1200, 1623)}
    for part, (begin, end) in ends.items():
        lines = [f"{name}/rot{turn:03d}" for name in NAMES[begin:end] for turn in (0, 90, 180, 270)]
        (folder / f"vinyals_{part}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("name", SIZES)
def test_omniglots_splits_have_their_sizes_and_no_class_twice(name, data_dir):
    split = find_protocol(name, "omniglot").split(Classes(NAMES, GROUPS, 0, data_dir))
    assert tuple(map(len, split)) == SIZES[name]
    together = [c for part in split for c in part]
    assert len(set(together)) == len(together)


def test_a_shuffled_split_follows_its_seed_and_not_the_order_of_the_classes():
    split = find_protocol("random-classes", "folder").split
    names = [f"class{c:02d}" for c in range(20)]
    first = split(Classes(names, [""] * 20, 0, None))
    assert tuple(map(len, first)) == (12, 4, 4)
    backwards = split(Classes(names[::-1], [""] * 20, 0, None))
    for one, other in zip(first, backwards):
        assert {names[c] for c in one} == {names[::-1][c] for c in other}
    assert split(Classes(names, [""] * 20, 1, None)) != first


@pytest.mark.parametrize("count", range(2, 12))
def test_few_classes_are_split_so_that_some_train_and_some_test(count):
    split = find_protocol(None, "folder").split(Classes([str(c) for c in range(count)], [""] * count, 0, None))
    assert sum(map(len, split)) == count
    assert len(split[0]) >= len(split[2]) >= 1


def test_the_rotations_are_those_of_the_papers():
    rotations = {p.name: (p.train_rotations, p.test_rotations) for p in PROTOCOLS}
    assert rotations["vinyals"] == ("classes", "classes")
    assert rotations["maml"] == ("random", "random")
    assert rotations["reptile"] == ("classes", "none")
    assert rotations["lake"] == rotations["vinyals-no-rotations"] == ("none", "none")
    intents = {p.name for p in PROTOCOLS if p.datasets in (("banking77",), ("clinc150",))}
    assert len(intents) == 10  # five folds each, Dopierre et al. 2021
    for p in PROTOCOLS:
        assert (p.query, p.episodes) == ((5, 600) if p.name in intents else (15, 2000))


def test_missing_split_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vinyals_train\.txt, .*omniglot.splits"):
        find_protocol("vinyals", "omniglot").split(Classes(NAMES, GROUPS, 0, tmp_path))


def test_split_files_with_other_classes_or_counts_are_refused(data_dir):
    file = data_dir / "omniglot" / "splits" / "vinyals_val.txt"
    whole = file.read_text()
    file.write_text("\n".join(whole.splitlines()[:-4]))
    with pytest.raises(ValueError, match="171"):
        find_protocol("vinyals", "omniglot").split(Classes(NAMES, GROUPS, 0, data_dir))
    file.write_text(whole + "Klingon/character01/rot000\n")
    with pytest.raises(ValueError, match="Klingon"):
        find_protocol("vinyals", "omniglot").split(Classes(NAMES, GROUPS, 0, data_dir))


@pytest.mark.parametrize(
    ("protocol", "data", "words"),
    [
        ("vinyals", "glyphs", ["is for omniglot", "fit 'glyphs': glyphs"]),
        ("random-classes", "omniglot", ["vinyals-no-rotations, vinyals, maml, reptile, lake"]),
        ("no such", "folder", ["not known", "random-classes"]),
    ],
)
def test_a_protocol_of_other_data_is_refused_before_anything_is_read(protocol, data, words):
    with pytest.raises(ValueError, match="protocol") as refused:
        load_splits(DataConfig(name=data, protocol=protocol))
    for word in words:
        assert word in str(refused.value)


def test_the_split_of_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match=r"1623 classes, got 10"):
        find_protocol("maml", "omniglot").split(Classes(NAMES[:10], GROUPS[:10], 0, None))
    with pytest.raises(ValueError, match=r"2 classes or more"):
        find_protocol(None, "folder").split(Classes(["only"], [""], 0, None))
