"""Columns that a pool can serve, with sentences on those that it cannot; the training episode that fits."""

import numpy as np
import pytest

from metarep_jax.data import check_episode_spec, fitting_episode, pool_of_arrays, usable_columns
from metarep_jax.data.tasks.episodes import TEST_FLAGS
from metarep_jax.types import EpisodeSpec


def pool_of(*counts):
    label = np.repeat(np.arange(len(counts)), counts)
    return pool_of_arrays(np.zeros((len(label), 2, 2, 1), np.uint8), label, classes=len(counts))


def columns(pool, ways=(5, 20), shots=(1, 5), query=15, **more):
    specs, notes = usable_columns(pool, ways, shots, query, class_names="abcdefghij", **more)
    return [(spec.way, spec.shot, spec.query) for spec in specs], notes


def test_a_large_pool_serves_every_column_without_a_note():
    assert columns(pool_of(*[20] * 20)) == ([(5, 1, 15), (5, 5, 15), (20, 1, 15), (20, 5, 15)], [])


def test_queries_are_what_the_smallest_class_leaves():
    assert columns(pool_of(*[20] * 4, 12), ways=(5,))[0] == [(5, 1, 11), (5, 5, 7)]


def test_ways_beyond_the_classes_are_left_out_with_a_note():
    found, notes = columns(pool_of(*[20] * 10))
    assert [way for way, _, _ in found] == [5, 5]
    assert notes == ["no columns of 20 ways: test has 10 classes"]
    specs, notes = usable_columns(pool_of(*[20] * 10), (20,), (1,), 15, "classes")
    assert [(spec.way, spec.rotations) for spec in specs] == [(20, "classes")] and not notes


def test_with_fewer_classes_than_any_way_the_way_is_their_number():
    found, notes = columns(pool_of(20, 20, 20))
    assert found == [(3, 1, 15), (3, 5, 15)]
    assert notes == ["episodes are of 3 ways, not 5 or 20: test has 3 classes"]


def test_shots_that_leave_no_query_are_left_out_with_the_class():
    found, notes = columns(pool_of(20, 3, 20, 20, 20))
    assert found == [(5, 1, 2)]
    assert notes[1] == (
        "no columns of 5 shots: class 'b' of test has 3 examples, and 6 are needed for 5 shots and a query"
    )
    found, notes = columns(pool_of(20, 1))
    assert not found and "no columns of 1 or 5 shots: class 'b' of test has 1 example, and 2 are needed" in notes[1]


@pytest.mark.parametrize("counts", [(), (20,)])
def test_a_single_class_serves_none(counts):
    found, notes = columns(pool_of(*counts))
    assert not found
    assert notes == [f"no few-shot episodes: they need 2 classes or more to tell apart, and test has {len(counts)}"]


def test_the_training_episode_shrinks_to_the_classes_and_their_examples_and_says_so():
    spec, notes = fitting_episode(pool_of(20, 9, 20), EpisodeSpec(5, 1, 15, least_way=4), class_names="abc")
    assert (spec.way, spec.shot, spec.query, spec.least_way) == (3, 1, 8, 3)
    assert notes == [
        "training episodes are of 3 ways, not 5: train has 3 classes",
        "training episodes have 8 queries a class, not 15: class 'b' of train has 9 examples",
    ]
    assert fitting_episode(pool_of(*[20] * 5), EpisodeSpec(5, 1, 15)) == (EpisodeSpec(5, 1, 15), [])


@pytest.mark.parametrize(
    ("spec", "flags", "said"),
    [
        (EpisodeSpec(4, 1, 1), None, r"set --meta\.episode\.way 3 or less, or give another split .* --data\.protocol"),
        (EpisodeSpec(2, 1, 9), None, r"set --meta\.episode\.query 3 or less, or add examples or remove the class"),
        (EpisodeSpec(2, 5, 1), None, r"lower --meta\.episode\.shot and --meta\.episode\.query to 4 together"),
        (EpisodeSpec(2, 1, 9), TEST_FLAGS, r"set --evaluate\.query 3 or less"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_with_the_flag_as_it_is_typed(spec, flags, said):
    with pytest.raises(ValueError, match=said):
        check_episode_spec(pool_of(20, 4, 20), spec, "abc", "train", **({"flags": flags} if flags else {}))


def test_a_class_with_one_image_is_named():
    with pytest.raises(ValueError, match=r"class 'b' of the val split has 1 images.* every class needs 2 or more"):
        check_episode_spec(pool_of(20, 1), EpisodeSpec(2, 1, 1), "ab", "val")
