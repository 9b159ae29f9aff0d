"""Defaults that follow the data."""

import numpy as np
import pytest

from metarep_jax.data import default_augment, large_images_note, splits_from_arrays


def splits_of(*shape, name="arrays"):
    return splits_from_arrays(np.zeros((2, *shape), np.uint8 if len(shape) == 3 else np.int16), name=name)


@pytest.mark.parametrize(
    ("shape", "name"),
    [((28, 28, 1), "glyph"), ((224, 224, 1), "crop-flip"), ((32, 32, 3), "simclr"), ((8000,), "none")],
)
def test_the_default_augmentation_follows_channels_and_size(shape, name):
    assert default_augment(splits_of(*shape)) == name


def test_letters_are_letters_in_any_size_and_colour():
    assert default_augment(splits_of(224, 224, 3, name="omniglot")) == "glyph"


def test_large_images_are_noted_with_the_flag():
    assert large_images_note(splits_of(64, 64, 3)) is None and large_images_note(splits_of(8000)) is None
    note = large_images_note(splits_of(128, 128, 3))
    assert note == "images are 128×128; --data.image-size 32 has 16 times fewer pixels, and steps as much faster"
