"""Pools of arrays: the table of rows by class, and arrays that make none."""

import numpy as np
import pytest

from metarep_jax.data import pool_of_arrays


def test_a_pool_lists_the_rows_of_each_class_in_their_order():
    pool = pool_of_arrays(np.arange(5.0), np.array([2, 0, 2, 0, 2]), classes=4)
    assert pool.count.tolist() == [2, 0, 3, 0]
    assert pool.members[0, :2].tolist() == [1, 3]
    assert pool.members[2, :3].tolist() == [0, 2, 4]


def test_integers_stay_what_they_are():
    pool = pool_of_arrays(np.full((2, 3, 3, 1), 200, np.uint8), np.array([0, 1]))
    assert pool.inputs.dtype == np.uint8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_are_refused_by_their_first_row(bad):
    images = np.zeros((4, 2, 2, 1), np.float32)
    images[1, 0, 1], images[3, 1, 0] = bad, bad
    with pytest.raises(ValueError, match="2 of 4 inputs hold NaN or infinite values, the first is row 1"):
        pool_of_arrays(images, np.array([0, 0, 1, 1]))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, -1, 1]), "labels are integers from 0, got int64 with least value -1"),
        (np.array([0.0, 1.0, 1.0]), "labels are integers from 0, got float64"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        pool_of_arrays(np.zeros((3, 2)), labels)
