"""Omniglot: what is missing is said, and the real one, where it is at hand, is whole."""

import time
import zipfile

import numpy as np
import pytest

from metarep_jax.data import DataConfig, load_splits
from metarep_jax.data.images.omniglot import drawings, find_parts


def test_missing_files_are_named_with_the_places_where_they_are_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images_background\.zip .*METAREP_DATA"):
        load_splits(DataConfig(name="omniglot"))
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "images_background.zip").touch()
    with pytest.raises(FileNotFoundError, match="images_evaluation is missing"):
        load_splits(DataConfig(name="omniglot", data_dir=tmp_path))


def test_a_zip_file_and_its_extracted_folder_hold_the_same_drawings(tmp_path):
    with zipfile.ZipFile(tmp_path / "images_background.zip", "w") as archive:
        for name in ("B/character01/0002_01.png", "A/character02/0001_02.png", "A/character02/0001_01.png"):
            archive.writestr(f"images_background/{name}", name)
            archive.writestr(f"__MACOSX/images_background/{name}", "")
        archive.extractall(tmp_path, [name for name in archive.namelist() if not name.startswith("__")])
    (tmp_path / "images_evaluation").mkdir()
    zipped = list(drawings(tmp_path / "images_background.zip"))
    assert [name for name, _ in zipped] == [f"A/character02/0001_0{i}.png" for i in (1, 2)] + [
        "B/character01/0002_01.png"
    ]
    assert all(name.encode() == content for name, content in zipped)
    assert list(drawings(tmp_path / "images_background")) == zipped
    assert find_parts(tmp_path)["background"].suffix == ".zip"


def test_a_damaged_zip_file_is_named(tmp_path):
    (tmp_path / "images_background.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"images_background\.zip is damaged"):
        list(drawings(tmp_path / "images_background.zip"))


@pytest.fixture(scope="module")
def omniglot(metarep_data, tmp_path_factory):
    """A function of a protocol's name; the first call prepares the data."""
    cache = tmp_path_factory.mktemp("cache")
    return lambda protocol: load_splits(
        DataConfig(name="omniglot", data_dir=metarep_data, cache_dir=cache, protocol=protocol)
    )


@pytest.mark.parametrize(
    ("protocol", "sizes"),
    [
        ("vinyals", (1028, 172, 423)),
        ("vinyals-no-rotations", (1028, 172, 423)),
        ("maml", (1100, 100, 423)),
        ("reptile", (1200, 0, 423)),
        ("lake", (964, 0, 659)),
    ],
)
def test_every_protocol_splits_the_1623_characters_of_20_drawings(omniglot, protocol, sizes):
    splits = omniglot(protocol)
    for part, size in zip(("train", "val", "test"), sizes):
        pool = getattr(splits, part)
        assert pool.count.shape == (size,)
        assert (np.asarray(pool.count) == 20).all()
        assert pool.inputs.shape == (20 * size, 28, 28, 1)
        assert len(splits.class_names[part]) == size


def test_strokes_are_white_on_black_and_a_second_start_is_quick(omniglot):
    omniglot("lake")
    started = time.perf_counter()
    splits = omniglot("lake")
    assert time.perf_counter() - started < 1.0
    assert 10 < np.asarray(splits.train.inputs[::50]).mean() < 40
    assert splits.class_names["train"][0] == "Alphabet_of_the_Magi/character01"
