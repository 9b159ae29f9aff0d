"""Glyphs: which letters, which classes, which scripts in which split."""

import numpy as np
import pytest

from metarep_jax.data import DataConfig, load_splits
from metarep_jax.data.images.glyphs import TOLERANCE, differences, font_files, merge, render, script_of, shared_letters


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return load_splits(DataConfig(cache_dir=tmp_path_factory.mktemp("cache")))


def test_twelve_faces_share_653_letters_without_a_decomposition():
    letters = shared_letters(font_files())
    assert len(letters) == 653
    assert "é" not in letters
    assert {"a", "Я", "ბ", "5"} < set(letters)


def test_every_split_has_enough_classes_of_twelve_images(splits):
    sizes = [pool.count.shape[0] for pool in splits[:3]]
    assert sizes[1] >= 20
    assert sizes[2] >= 100
    assert sum(sizes) == 563
    for pool in splits[:3]:
        assert (pool.count == 12).all()
        assert pool.inputs.shape[1:] == (28, 28, 1)
        assert pool.inputs.dtype == np.uint8
        assert (pool.inputs.max(axis=(1, 2, 3)) > 100).all()


def test_test_scripts_are_never_seen_in_training_but_for_letters_that_look_the_same(splits):
    assert all(name.startswith(("armenian", "georgian")) for name in splits.class_names["test"])
    assert all(name.startswith("greek") for name in splits.class_names["val"])
    for name in splits.class_names["train"]:
        joined = name.split("=")
        if any(part.startswith(("armenian", "georgian", "greek")) for part in joined):
            assert len({part.split()[0] for part in joined}) > 1


def test_letters_that_look_the_same_are_one_class(splits):
    (capital_a,) = [name for name in splits.class_names["train"] if "latin capital letter a" in name.split("=")]
    assert {"greek capital letter alpha", "cyrillic capital letter a"} < set(capital_a.split("="))


def test_letters_are_joined_within_the_tolerance_and_transitively():
    images = np.zeros((4, 1, 2, 2), np.uint8)
    for i, level in enumerate((0, 30, 60, 200)):
        images[i] = level
    assert differences(images)[0, 1] == pytest.approx(30 / 255, abs=1e-6)
    assert merge(images, 29 / 255) == [[0], [1], [2], [3]]
    assert merge(images, 31 / 255) == [[0, 1, 2], [3]]


def test_the_tolerance_separates_what_readers_tell_apart():
    letters = list("oоbdIl1ʃ")
    images = render(letters, font_files(), 28)
    assert merge(images, TOLERANCE) == [[0, 1], [2], [3], [4], [5], [6], [7]]


def test_letters_are_centred_and_none_is_cut_beyond_its_frame():
    images = render(["o", "W", "."], font_files()[:1], 28)[:, 0]
    for image in images:
        for axis in (0, 1):
            ink = np.flatnonzero(image.max(axis=axis))
            assert abs((ink[0] + ink[-1]) - 27) <= 1
    assert render(["W"], font_files()[:1], 8).shape == (1, 1, 8, 8)


def test_scripts_are_those_of_unicode_names():
    assert [script_of(letter) for letter in "aΑжաბ5ʰ"] == [
        "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "COMMON", "COMMON",
    ]  # fmt: skip
