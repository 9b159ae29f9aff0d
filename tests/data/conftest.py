"""Small data sets made on the spot."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_folder(tmp_path):
    """Six classes at two depths, of 3 to 8 grey 6 × 6 images; image i of class c is filled with 20c + i."""
    root = tmp_path / "images"
    for c in range(6):
        folder = root / ("deep/er" if c % 2 else "flat") / f"class{c}"
        folder.mkdir(parents=True)
        for i in range(3 + c):
            Image.fromarray(np.full((6, 6), 20 * c + i, np.uint8)).save(folder / f"{i}.png")
    (root / "flat" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return root


@pytest.fixture(scope="session")
def metarep_data():
    """The folder of $METAREP_DATA."""
    folder = Path(os.environ.get("METAREP_DATA", "")).expanduser()
    if not os.environ.get("METAREP_DATA") or not folder.is_dir():
        pytest.skip("METAREP_DATA does not name a folder with omniglot/; tests on real data are skipped")
    return folder
