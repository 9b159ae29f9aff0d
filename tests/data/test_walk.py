"""One walk for images, recordings and texts: links, hidden files, letter case, and what is said of what is no data."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarep_jax.data.walk import walk_files


def walk(root, *endings):
    return walk_files(root, endings or (".wav",), "recordings", "a folder of them")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def test_files_are_listed_by_folder_and_name_in_either_case_without_hidden_ones(tmp_path):
    touch(tmp_path, "b/2.wav", "b/1.WAV", "a/deep/1.wav", ".hidden/1.wav", "a/._1.wav", "__MACOSX/1.wav", "0.wav")
    assert [file.name for file in walk(tmp_path).files] == ["0.wav", "a/deep/1.wav", "b/1.WAV", "b/2.wav"]


def test_links_to_folders_and_files_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "elsewhere/1.wav", "data/own/2.wav")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "also").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "own" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "own" / "3.wav").symlink_to(tmp_path / "elsewhere" / "1.wav")
    found = [file.name for file in walk(tmp_path / "data").files]
    assert found == ["also/1.wav", "linked/1.wav", "own/2.wav", "own/3.wav"]


def test_links_to_nothing_are_named(tmp_path, caplog):
    touch(tmp_path, "a/1.wav")
    (tmp_path / "a" / "2.wav").symlink_to(tmp_path / "gone.wav")
    with caplog.at_level(logging.WARNING):
        assert len(walk(tmp_path).files) == 1
    assert "links to files that do not exist are passed over: a/2.wav; mend or remove them" in caplog.text
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"link is a link to .*gone, which does not exist"):
        walk(tmp_path / "link")


def test_classes_without_any_file_that_counts_are_named_with_what_to_do(tmp_path, caplog):
    touch(tmp_path, "cat/1.wav", "dog/1.mp3", "dog/2.mp3", "notes/readme.xyz", "list.txt")
    with caplog.at_level(logging.INFO):
        walk(tmp_path)
    assert "4 files that are not recordings are passed over: 2 .mp3, 1 .txt, 1 .xyz" in caplog.text
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "folders without any recordings are no classes: dog (2 .mp3), notes (1 .xyz); convert sound" in warning


@pytest.mark.parametrize(
    ("name", "advice"),
    [("1.heic", "convert HEIC to JPEG"), ("all.h5", "splits_from_arrays"), ("pets.zip", "unpack archives")],
)
def test_a_folder_of_other_files_says_what_to_do(tmp_path, name, advice):
    touch(tmp_path, f"cat/{name}")
    with pytest.raises(ValueError, match=rf"holds no recordings; it holds 1 \{os.path.splitext(name)[1]}; .*{advice}"):
        walk(tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"), [("pets.zip", "unpack archives"), ("x.h5", "splits_from_arrays"), ("x", "give the folder")]
)
def test_a_file_in_place_of_a_folder_says_what_to_do(tmp_path, name, advice):
    touch(tmp_path, name)
    with pytest.raises(ValueError, match=rf"{name} is a file, wanted is a folder of them; .*{advice}"):
        walk(tmp_path / name)


def test_no_folder_and_a_missing_one_say_which_flag(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give it by --data\.data-dir DIR or METAREP_DATA"):
        walk(None)
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        walk(tmp_path / "nowhere")


def test_what_pillow_reads_but_is_no_image_is_no_image(tmp_path):
    from metarep_jax.data.images.image_folder import list_image_folder

    touch(tmp_path, "a/1.h5")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a" / "1.PNG")
    assert [file.name for file in list_image_folder(tmp_path).files if isinstance(file, Path)] == ["1.PNG"]
