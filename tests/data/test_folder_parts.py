"""Folders with parts, fixed classes, classes of their own, or none; what is said of each, and what is refused."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from metarep_jax.data import DataConfig, load_splits, stream_reader
from metarep_jax.data.class_folders import part_in


def save(root, layout):
    """Images at ``PATH: count``, each filled with a number of its own."""
    level = 0
    for place, count in layout.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            level += 1
            Image.fromarray(np.full((4, 4), level, np.uint8)).save(root / place / f"{i}.png")
    return root


def load(root, **changed):
    return load_splits(
        DataConfig(**{"name": "folder", "data_dir": root, "cache_dir": root.parent / "cache", **changed})
    )


def levels(pool):
    return sorted(np.asarray(pool.inputs)[:, 0, 0, 0].tolist())


PARTED = {"Train/cat": 3, "Train/dog": 2, "valid/cat": 1, "valid/dog": 1, "TEST/cat": 2, "TEST/dog": 1}


def test_given_parts_are_fixed_classes_and_the_other_meaning_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    splits = load(save(tmp_path / "pets", PARTED))
    assert (splits.protocol.name, splits.fixed_classes) == ("given-parts", True)
    assert splits.class_names == dict.fromkeys(("train", "val", "test"), ("cat", "dog"))
    assert [levels(pool) for pool in splits[:3]] == [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]
    assert splits.test.count.tolist() == [2, 1]
    assert "2 fixed classes in parts as the folders give them (train 5, val 2, test 3)" in caplog.text
    assert "--data.protocol random-classes, which joins the parts" in caplog.text
    assert splits.describe().startswith("the same 2 classes in training and testing, of other examples: 5 for training")


def test_the_parts_may_be_joined_for_few_shot_learning_or_for_another_share(tmp_path):
    root = save(tmp_path / "pets", PARTED)
    by_class = load(root, protocol="random-classes")
    assert not by_class.fixed_classes
    assert sorted(sum(by_class.class_names.values(), ())) == ["cat", "dog"]
    assert sorted(level for pool in by_class[:3] for level in levels(pool)) == list(range(1, 11))
    by_share = load(root, protocol="share-of-each-class")
    assert by_share.fixed_classes and by_share.train.count.tolist() == [4, 2]


def test_without_a_test_part_validation_is_for_testing(tmp_path):
    splits = load(save(tmp_path / "pets", {"train/cat": 2, "train/dog": 2, "val/cat": 1}))
    assert splits.class_names["val"] == () and splits.class_names["test"] == ("cat", "dog")
    assert splits.test.count.tolist() == [1, 0]


def test_parts_with_classes_of_their_own_are_for_few_shot_learning(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    splits = load(save(tmp_path / "pets", {"train/cat": 2, "train/dog": 2, "val/hen": 1, "test/cow": 2}))
    assert (splits.protocol.name, splits.fixed_classes) == ("classes-of-parts", False)
    assert splits.class_names == {"train": ("cat", "dog"), "val": ("hen",), "test": ("cow",)}
    assert "each part has classes of its own" in caplog.text
    assert "for fixed classes, give --data.protocol share-of-each-class" in caplog.text


def test_parts_that_share_some_classes_are_refused_with_both_meanings(tmp_path):
    root = save(tmp_path / "pets", {"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/cow": 2})
    with pytest.raises(
        ValueError, match=r"1 classes .* are training classes too, and 1 are not, the first is cow"
    ) as e:
        load(root)
    assert "random-classes (few-shot" in str(e.value) and "share-of-each-class (fixed classes" in str(e.value)
    for protocol in ("given-parts", "classes-of-parts"):
        with pytest.raises(ValueError, match=rf"{protocol} .*the first is c.*--data\.protocol"):
            load(root, protocol=protocol)
    assert len(load(root, protocol="random-classes").class_names["train"]) == 1


def test_a_class_called_train_is_a_class(tmp_path):
    splits = load(save(tmp_path / "vehicles", {"train": 2, "bus": 2, "car": 2}))
    assert sorted(sum(splits.class_names.values(), ())) == ["bus", "car", "train"]


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"train/a": 1, "test/a": 1, "more": 1}, "has the parts test, train and, beside them, more; move one"),
        ({"train/a": 1, "test/a": 1, ".": 1}, "and, beside them, images in .*pets itself"),
        ({"val/a": 1, "test/a": 1}, "has the parts test, val, and none for training; name one train"),
        ({"train/a": 1, "test": 1}, r"training part .* has folders of classes and test/0\.png lies in none"),
        ({"train/a": 1, "train": 2, "test/a": 1}, r"2 images lie in .*train itself, the first is 0\.png"),
    ],
)
def test_folders_that_could_mean_several_things_are_refused(tmp_path, layout, said):
    with pytest.raises(ValueError, match=said):
        load(save(tmp_path / "pets", layout))


def test_a_flat_folder_is_images_without_classes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    splits = load(save(tmp_path / "pets", {".": 20}))
    assert not splits.labelled and not splits.fixed_classes
    assert splits.protocol.name == "unlabelled" and "one in ten held out" in caplog.text
    assert (splits.train.label.shape, splits.test.label.shape) == ((18,), (2,))
    assert splits.class_names == {"train": ("unlabelled",), "val": (), "test": ("unlabelled",)}
    assert sorted(levels(splits.train) + levels(splits.test)) == list(range(1, 21))
    with pytest.raises(ValueError, match=r"random-classes needs examples with classes, and the data have none"):
        load(tmp_path / "pets", protocol="random-classes")


def test_classes_for_judging_may_lie_beside_images_without_any_or_be_linked_there(tmp_path):
    save(tmp_path, {"mine": 5, "labelled/cat": 2, "labelled/dog": 2})
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "train").symlink_to(tmp_path / "mine")
    (tmp_path / "both" / "test").symlink_to(tmp_path / "labelled")
    splits = load(tmp_path / "both")
    assert not splits.labelled and splits.train.label.shape == (5,)
    assert splits.class_names == {"train": ("unlabelled",), "val": (), "test": ("cat", "dog")}
    assert splits.test.count.tolist() == [2, 2]
    assert splits.describe() == "examples without classes: 5 for training, 4 for testing, of 2 classes"


def test_a_share_of_each_class_is_seeded_and_leaves_no_part_of_a_class_empty(tmp_path):
    root = save(tmp_path / "pets", {"few": 3, "two": 2, "many": 20})
    splits = load(root, protocol="share-of-each-class")
    assert splits.class_names == dict.fromkeys(("train", "val", "test"), ("few", "many", "two"))
    assert [pool.count.tolist() for pool in splits[:3]] == [[1, 12, 1], [1, 4, 0], [1, 4, 1]]
    assert sorted(level for pool in splits[:3] for level in levels(pool)) == list(range(1, 26))
    again, other = (load(root, protocol="share-of-each-class", split_seed=seed) for seed in (0, 1))
    assert again.digest == splits.digest != other.digest
    assert load(root, protocol="share-of-each-class", held_out=0.1).train.count.tolist() == [1, 16, 1]
    save(root, {"one": 1})
    with pytest.raises(ValueError, match=r"needs 2 examples a class or more.* the class one has 1"):
        load(root, protocol="share-of-each-class")
    with pytest.raises(ValueError, match=r"--data\.held-out must lie between 0 and 0\.5"):
        DataConfig(held_out=0.5)


def test_a_stream_and_the_images_held_beside_it_agree_on_the_parts(tmp_path):
    root = save(tmp_path / "pets", {"cat": 10, "dog": 10})
    splits = load(root, protocol="share-of-each-class", stream=True, per_class=1, workers=0)
    assert [pool.count.tolist() for pool in splits[:3]] == [[1, 1], [1, 1], [1, 1]]
    reader = stream_reader(splits, 12)
    seen = sorted(next(reader)["inputs"][:, 0, 0, 0].tolist())
    reader.close()
    assert len(set(seen)) == 12
    assert set(levels(splits.train)) < set(seen) and not {*levels(splits.val), *levels(splits.test)} & set(seen)


def test_where_data_lie_does_not_change_the_digest_and_an_image_does(tmp_path):
    one, other = (load(save(tmp_path / name, PARTED)) for name in ("here", "there"))
    assert one.digest == other.digest
    Image.fromarray(np.full((4, 4), 99, np.uint8)).save(tmp_path / "there" / "Train" / "cat" / "0.png")
    assert load(tmp_path / "there").digest != one.digest


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "pets", PARTED)
    splits = load_splits(DataConfig(name="folder", data_dir=Path("~/pets"), cache_dir=Path("~/cache")))
    assert splits.config.data_dir == tmp_path / "pets" and list((tmp_path / "cache").glob("*.npz"))


def test_recordings_have_parts_as_images_have(tmp_path):
    for place in ("train/bark", "train/meow", "test/bark", "test/meow"):
        (tmp_path / "sounds" / place).mkdir(parents=True)
        wavfile.write(tmp_path / "sounds" / place / "1.wav", 8000, np.zeros(9, np.int16))
    splits = load(tmp_path / "sounds", name="audio")
    assert splits.protocol.name == "given-parts" and splits.class_names["test"] == ("bark", "meow")
    assert splits.train.inputs.shape == (2, 8000)


@pytest.mark.parametrize(
    ("name", "part"),
    [("testament", None), ("devil", None), ("value_investing", None), ("trained", None), ("train-a", "train"),
     ("wiki.valid.tokens", "val"), ("DEV", "val"), ("my_testing2", "test")],
)  # fmt: skip
def test_whole_words_alone_say_a_part(name, part):
    assert part_in(name) == part
