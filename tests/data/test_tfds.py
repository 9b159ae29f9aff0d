"""TFDS data sets by name, prepared here without TensorFlow."""

import io
import pickle
import sys

import numpy as np
import pytest
import requests
from PIL import Image

from metarep_jax.data import DataConfig, load_splits
from metarep_jax.data.images.tfds_images import quiet
from metarep_jax.data.text.named_texts import read_texts

tfds = pytest.importorskip("tensorflow_datasets")


def png(level):
    file = io.BytesIO()
    Image.fromarray(np.full((5, 5), level, np.uint8)).save(file, "png")
    return file.getvalue()


class _Made(tfds.core.GeneratorBasedBuilder):
    """Ten classes in two splits; class c's images are filled with 20c + i."""

    VERSION = tfds.core.Version("1.0.0")
    SKIP_REGISTERING = True
    code_path = None

    def _info(self):
        label = tfds.features.ClassLabel(names=[f"kind{c}" for c in range(10)])
        image = tfds.features.Image(shape=(5, 5, 1), encoding_format="png")
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(4)), "test": self._generate_examples(range(4, 6))}

    def _generate_examples(self, numbers):
        for i in numbers:
            for c in range(10):
                yield f"{c}-{i}", {"image": png(20 * c + i), "label": c}


class MadeUp(_Made):
    """A data set of images with labels."""


class WithoutLabels(_Made):
    """A data set of images alone."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(5, 5, 1))})
        )

    def _generate_examples(self, numbers):
        for i in numbers:
            yield i, {"image": png(i)}


class Sentences(_Made):
    """A data set of sentences with labels."""

    def _info(self):
        label = tfds.features.ClassLabel(names=[f"kind{c}" for c in range(10)])
        features = tfds.features.FeaturesDict({"label": label, "sentence": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self, numbers):
        for i in numbers:
            for c in range(10):
                yield f"{c}-{i}", {"sentence": f"naïve sentence {i}\nof {c}", "label": c}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    with quiet():
        for builder in (MadeUp, WithoutLabels, Sentences):
            builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def config(data_dir, name, **changed):
    return DataConfig(name=name, data_dir=data_dir, cache_dir=data_dir / "cache", **changed)


@pytest.mark.parametrize("name", ["made_up", "tfds:made_up"])
def test_a_prepared_data_set_is_read_by_name_with_all_its_splits_together(data_dir, name):
    splits = load_splits(config(data_dir, name))
    assert [len(splits.class_names[part]) for part in ("train", "val", "test")] == [6, 2, 2]
    for part in ("train", "val", "test"):
        pool = getattr(splits, part)
        assert (pool.count == 6).all()
        for name, members in zip(splits.class_names[part], pool.members):
            levels = sorted(int(pool.inputs[row, 0, 0, 0]) for row in members)
            assert levels == [20 * int(name.removeprefix("kind")) + i for i in range(6)]
    assert "tensorflow" not in sys.modules


def test_its_records_can_be_sent_to_another_process(data_dir):
    records = config(data_dir, "made_up").read()
    again = pickle.loads(pickle.dumps(records))
    assert again.files[7] == records.files[7]


def test_an_unknown_name_is_refused_with_the_nearest_and_what_is_prepared(data_dir):
    with pytest.raises(ValueError, match=r"'cifar11'; near it: cifar1") as refused:
        load_splits(config(data_dir, "cifar11"))
    for known in ("omniglot", "glyphs", "folder", "made_up", str(data_dir)):
        assert known in str(refused.value)
    assert "mnist" not in str(refused.value)  # not all 250


def test_a_data_set_without_labels_is_refused_with_its_features(data_dir):
    with pytest.raises(ValueError, match=r"features are image: Image"):
        load_splits(config(data_dir, "without_labels"))


def test_a_data_set_that_cannot_be_prepared_here_says_how_else(data_dir, monkeypatch):
    def refuse(self):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(tfds.core.GeneratorBasedBuilder, "download_and_prepare", refuse)
    monkeypatch.setattr("metarep_jax.data.images.tfds_images.check_reachable", lambda builder, name: None)
    with pytest.raises(ValueError, match=r"'mnist' cannot be prepared here .*array_record"):
        load_splits(config(data_dir, "mnist"))


def test_a_server_out_of_reach_is_asked_once_and_named(data_dir, monkeypatch):
    asked = []

    def refuse(url, **how):
        asked.append((url, how["timeout"]))
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(
        ValueError, match=r"'mnist' is not prepared yet, and cannot be downloaded: storage\.googleapis\.com"
    ):
        load_splits(config(data_dir, "mnist"))
    assert len(asked) == 1 and asked[0][1] <= 5


def test_sentences_of_a_prepared_data_set_are_read_with_their_classes(data_dir):
    texts = read_texts("tfds-text:sentences", data_dir, data_dir / "cache")
    assert sorted(texts.names) == sorted(f"kind{c}" for c in range(10))
    assert len(texts.lines) == 60 and not texts.running
    for line, label in zip(texts.lines, texts.label):
        assert line.startswith("naïve sentence ") and line.endswith(f" of {texts.names[label].removeprefix('kind')}")
    with pytest.raises(ValueError, match="no pair of a text and a class label; its features are image: Image"):
        read_texts("tfds-text:without_labels", data_dir, data_dir / "cache")
    assert "tensorflow" not in sys.modules
