"""A user's own arrays: what they mean, and every kind that is refused, with words."""

import numpy as np
import pytest

from metarep_jax.data import splits_from_arrays

RANDOM = np.random.default_rng(0)


def images(n, shape=(4, 4, 1)):
    return RANDOM.integers(0, 256, (n, *shape), np.uint8)


def test_parts_with_the_same_classes_are_of_fixed_classes():
    x, y = images(6), np.array([7, 3, 7, 3, 9, 9])
    splits = splits_from_arrays((x, y), test=(x[:2], y[:2]))
    assert splits.fixed_classes and splits.labelled
    assert splits.class_names == {"train": ("3", "7", "9"), "val": (), "test": ("3", "7", "9")}
    assert splits.train.label.tolist() == [1, 0, 1, 0, 2, 2]
    assert splits.test.label.tolist() == [1, 0] and splits.test.count.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(splits.train.inputs, x)
    assert (
        splits.describe()
        == "the same 3 classes in training and testing, of other examples: 6 for training, 2 for testing"
    )


def test_parts_with_classes_of_their_own_are_for_few_shot_learning():
    splits = splits_from_arrays(
        train=(images(4), ["cat", "dog", "cat", "dog"]), val=(images(1), ["hen"]), test=(images(2), ["cow", "ape"])
    )
    assert not splits.fixed_classes and splits.protocol.name == "classes-of-parts"
    assert splits.class_names == {"train": ("cat", "dog"), "val": ("hen",), "test": ("ape", "cow")}
    assert splits.test.label.tolist() == [1, 0]
    assert splits.describe().startswith("2 classes for testing that training does not see, 2 for training, 1 for val")


def test_some_shared_classes_are_refused_with_both_meanings():
    with pytest.raises(
        ValueError, match=r"share 1 classes with train and have 1 of their own \(2 is only there\)"
    ) as e:
        splits_from_arrays((images(2), [0, 1]), test=(images(2), [1, 2]))
    assert "Fixed classes (fixed_classes=True)" in str(e.value)
    assert "Few-shot learning (fixed_classes=False)" in str(e.value)
    with pytest.raises(ValueError, match="share 0 classes"):
        splits_from_arrays((images(2), ["a", "b"]), test=(images(1), ["c"]), fixed_classes=True)
    with pytest.raises(ValueError, match=r"share 1 classes with train .*'b' is in both"):
        splits_from_arrays((images(2), ["a", "b"]), test=(images(1), ["b"]), fixed_classes=False)


def test_integers_counted_anew_in_each_part_are_other_classes_where_the_user_says_so():
    splits = splits_from_arrays((images(2), [0, 1]), test=(images(2), [0, 1]), fixed_classes=False)
    assert splits.class_names["train"] == ("train 0", "train 1")
    assert splits.class_names["test"] == ("test 0", "test 1")


def test_a_single_part_is_split_by_class_or_by_example_or_not_at_all():
    x, y = images(50), np.repeat(np.arange(10), 5)
    by_class = splits_from_arrays((x, y), fixed_classes=False)
    assert [len(names) for names in by_class.class_names.values()] == [6, 2, 2]
    by_example = splits_from_arrays((x, y), fixed_classes=True)
    assert by_example.fixed_classes and by_example.test.count.tolist() == [1] * 10
    assert [pool.label.shape[0] for pool in by_example[:3]] == [30, 10, 10]
    everything = splits_from_arrays((x, y))
    assert everything.train.label.shape == (50,) and everything.test.label.shape == (0,)
    assert everything.describe() == "nothing held out for testing; 10 classes: 50 for training"


def test_inputs_without_labels_are_for_pretraining_and_may_be_judged_on_classes():
    alone = splits_from_arrays(images(5))
    assert not alone.labelled and alone.class_names["train"] == ("unlabelled",)
    assert alone.describe() == "examples without classes: 5 for training"
    judged = splits_from_arrays(images(5), test=(images(4), ["b", "a", "b", "a"]))
    assert not judged.labelled and judged.class_names["test"] == ("a", "b")
    assert judged.describe() == "examples without classes: 5 for training, 4 for testing, of 2 classes"


def test_names_of_integer_classes_may_be_told():
    splits = splits_from_arrays((images(3), [1, 0, 1]), class_names=("cat", "dog"))
    assert splits.class_names["train"] == ("cat", "dog") and splits.train.label.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"class_names name integer labels from 0 to 1; labels are from 1 to 2"):
        splits_from_arrays((images(2), [1, 2]), class_names=("cat", "dog"))


@pytest.mark.parametrize(
    ("given", "shape", "dtype"),
    [
        (np.zeros((2, 4, 4), np.uint8), (4, 4, 1), np.uint8),
        (np.full((2, 4, 4, 3), 255), (4, 4, 3), np.uint8),
        (np.ones((2, 4, 4, 1)), (4, 4, 1), np.float32),
        (np.ones((2, 4, 4, 1), bool), (4, 4, 1), np.uint8),
        (np.zeros((2, 9), np.int16), (9,), np.int16),
        (np.zeros((2, 9), np.int64), (9,), np.int32),
    ],
)
def test_inputs_are_brought_to_one_form(given, shape, dtype):
    pool = splits_from_arrays(given).train
    assert (pool.inputs.shape[1:], pool.inputs.dtype) == (shape, dtype)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            np.full((2, 4, 4, 1), 200.0),
            r"train: float images lie in \[0, 1\], these in \[200, 200\]; divide by 255, or",
        ),
        (np.full((2, 4, 4, 1), -1.0), r"these in \[-1, -1\]; scale them"),
        (np.full((2, 4, 4, 1), np.nan), "train: 2 of 2 inputs hold NaN or infinite values, the first is row 0"),
        (np.full((2, 4, 4, 1), 300), "integer images lie in 0 to 255, these in 300 to 300"),
        (np.zeros((2, 3, 4, 4)), r"got shape \(2, 3, 4, 4\); transpose it, x\.transpose\(0, 2, 3, 1\)"),
        (np.zeros((0, 4, 4, 1)), r"there are no inputs, the shape is \(0, 4, 4, 1\)"),
        (np.zeros(5), r"images \[n, h, w, c\], recordings \[n, samples\]"),
        (np.array(["a text", "another"]), r"for texts, write \.txt files"),
        (None, r"train: inputs are images \[n, h, w, c\].* got object"),
        (np.zeros((2, 4, 4, 1), complex), "got complex128"),
        (np.full((2, 9), -1), "train: rows of integers are token ids from 0 on, these lie in -1 to -1"),
        (np.full((2, 9), 2**40), "rows of integers are token ids from 0 on, these lie in 1099511627776"),
    ],
)
def test_inputs_of_other_kinds_are_refused(inputs, said):
    with pytest.raises(ValueError, match=said):
        splits_from_arrays(inputs)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.eye(4), r"train: labels are one-hot rows of shape \(4, 4\); give labels\.argmax\(1\)"),
        ([(0, 1), (1, 1), (0, 2), (2, 2)], r"one integer or string an example, got shape \(4, 2\)"),
        ([[0], [1], [0], [1]], r"labels are of shape \(4, 1\), wanted is \[n\]; give labels\[:, 0\]"),
        ([0.0, 1.0, 0.0, 1.0], r"labels are integers or strings, got a float64; give labels\.astype\(int\)"),
        ([None, "a", "b", "c"], "labels are integers or strings, got a NoneType"),
        ([0, 1, 0], "there are 4 inputs and 3 labels; give one label an input"),
        ([0.0, 1.0, np.nan, 1.0], "some are NaN or infinite: leave those examples out"),
        ([0, "1", 0, "1"], "some labels are strings and others numbers; give one kind"),
        (np.array([b"a", b"b"] * 2), r"got a bytes_; give labels\.astype\(str\)"),
    ],
)
def test_labels_of_other_kinds_are_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        splits_from_arrays((images(4), labels))


def test_inputs_of_several_shapes_and_two_classes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="train: inputs must all have one shape; bring them to one size first"):
        splits_from_arrays(([np.zeros((4, 4)), np.zeros((2, 2))], [0, 1]))
    with pytest.raises(ValueError, match="class_names name two classes 'cat'; give each a name of its own"):
        splits_from_arrays((images(2), [0, 1]), class_names=["cat", "cat"])


@pytest.mark.parametrize(("setting", "said"), [({"seed": -1}, "seed must be at"), ({"held_out": 0.9}, "held_out must")])
def test_settings_of_a_split_are_named_as_they_are_given(setting, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        splits_from_arrays((images(4), [0, 1, 0, 1]), fixed_classes=True, **setting)


def test_parts_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match=r"test has inputs of shape \(5, 5, 1\) and uint8, train of \(4, 4, 1\)"):
        splits_from_arrays((images(2), [0, 1]), test=(images(2, (5, 5, 1)), [0, 1]))
    with pytest.raises(ValueError, match=r"train has labels and test has none; give \(test_inputs, test_labels\)"):
        splits_from_arrays((images(2), [0, 1]), test=images(2))
    with pytest.raises(ValueError, match="are integers here and strings there"):
        splits_from_arrays((images(2), [0, 1]), test=(images(2), ["0", "1"]))
    with pytest.raises(ValueError, match=r"train: give inputs and labels as a pair \(x, y\).* got a tuple of 3"):
        splits_from_arrays((images(2), [0, 1], [2, 3]))


def test_the_digest_is_of_arrays_labels_names_and_split_and_not_of_where_data_lie():
    x, y = images(6), np.array([0, 1, 2, 0, 1, 2])
    digest = splits_from_arrays((x, y)).digest
    assert digest and digest == splits_from_arrays((x.copy(), y.tolist())).digest
    other = x.copy()
    other[3, 1, 1] ^= 1
    changed = [
        splits_from_arrays((other, y)),
        splits_from_arrays((x, y[::-1])),
        splits_from_arrays((x, y), class_names="abc"),
        splits_from_arrays((x[:3], y[:3]), test=(x[3:], y[3:])),
    ]
    assert len({digest, *(splits.digest for splits in changed)}) == 5
