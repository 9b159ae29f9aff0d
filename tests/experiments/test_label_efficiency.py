"""The table of label efficiency: which classes have labels, and what their tasks are."""

import itertools

import numpy as np
import pytest

from experiments.tables.label_efficiency import TABLE, classes_of, pretraining, training
from experiments.tables.published import COLUMNS
from metarep_jax.data import DataConfig, Splits, find_protocol, pool_of_arrays, with_labelled_classes


def splits(classes=7, each=3):
    """Images that hold the number of their class and their own, in an order that mixes classes."""
    label = np.tile(np.arange(classes), each)
    pool = pool_of_arrays(np.stack([label, np.arange(len(label))], 1).astype(np.uint8), label)
    names = {"train": tuple("abcdefg"[:classes]), "val": (), "test": ()}
    return Splits(pool, pool, pool, names, find_protocol("vinyals-no-rotations", "omniglot"), DataConfig())


def test_labelled_classes_keep_all_their_images_and_no_others():
    found = with_labelled_classes(splits(), 3, seed=0)
    pool = found.train
    assert pool.inputs.shape == (9, 2) and pool.count.tolist() == [3, 3, 3]
    for place, name in enumerate(found.class_names["train"]):
        rows = np.asarray(pool.members)[place]
        assert set(np.asarray(pool.inputs)[rows, 0]) == {"abcdefg".index(name)}
        assert set(np.asarray(pool.label)[rows]) == {place}
        assert len(set(np.asarray(pool.inputs)[rows, 1])) == 3


def test_smaller_sets_lie_in_larger_ones_and_the_seed_decides():
    names = [set(with_labelled_classes(splits(), k, seed=4).class_names["train"]) for k in range(1, 8)]
    assert all(small < large for small, large in itertools.pairwise(names)) and len(names[-1]) == 7
    assert len({with_labelled_classes(splits(), 3, seed=seed).class_names["train"] for seed in range(8)}) > 3


@pytest.mark.parametrize("classes", [0, 8])
def test_a_number_of_classes_that_is_not_there_is_refused(classes):
    with pytest.raises(ValueError, match="1 to 7"):
        with_labelled_classes(splits(), classes, seed=0)


def test_every_column_has_tasks_of_no_more_ways_than_its_classes_turned_four_times():
    for column in COLUMNS[TABLE.name]:
        classes = classes_of(column)
        if classes:
            assert training("short", classes).episode.way <= 4 * classes
    assert training("short", 1028).episode.way == 60
    settings = pretraining("short")
    assert settings.neighbours_after < settings.train.steps
