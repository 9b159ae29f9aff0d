"""Glyphs: real letters drawn from the fonts that matplotlib ships. Needs no download, and no training data of anyone.

A class is a letter or digit that has no Unicode decomposition (é is e with an accent, and left out) and that all
twelve faces of DejaVu have; its images are the twelve faces: Sans, Sans Mono and Serif, each upright, bold, slanted
and both. 28 × 28 pixels, uint8, strokes white (255) on black, as in Omniglot inverted.
"""

import logging
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from metarep_jax.data.array_cache import cached, digest, file_facts
from metarep_jax.data.source_arrays import Source, from_arrays, to_arrays

log = logging.getLogger(__name__)

FACES = tuple(
    f"DejaVu{family}{style}.ttf"
    for family, slanted in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{slanted}", f"-Bold{slanted}")
)
TOLERANCE = 0.075  # RMS pixel difference: joins Α and А (0.073), u and ս (0.084) stay two letters
VERSION = 1  # of this file's drawing: another number makes caches anew
NO_SCRIPT = "COMMON"


def load_glyphs(cache_dir: Path, size: int = 28) -> Source:
    """The letters; drawn in a second at first, then from ``cache_dir``. Groups of classes are their scripts.

    A class that joins letters of several scripts has the group "COMMON", as have digits and modifiers.

    Raises:
      FileNotFoundError: when matplotlib's fonts are not where they should be.
    """
    fonts = font_files()
    key = digest([VERSION, size, TOLERANCE, *map(file_facts, fonts)])
    return from_arrays(cached(cache_dir, "glyphs", key, lambda: to_arrays(draw_glyphs(fonts, size))))


def draw_glyphs(fonts: list[Path], size: int) -> Source:
    """All letters in all faces, those that look the same made one class."""
    letters = shared_letters(fonts)
    images = render(letters, fonts, size)
    groups = merge(images, TOLERANCE)
    log.info(
        "glyphs: %d letters in %d faces; renders at most %g apart (RMS, of 1) are one class: %d classes",
        len(letters), len(fonts), TOLERANCE, len(groups),
    )  # fmt: skip
    scripts = [{script_of(letters[i]) for i in group} for group in groups]
    return Source(
        images=images[[group[0] for group in groups]].reshape(-1, size, size, 1),
        label=np.repeat(np.arange(len(groups), dtype=np.int32), len(fonts)),
        names=tuple("=".join(unicodedata.name(letters[i]).lower() for i in group) for group in groups),
        group=tuple(script.pop() if len(script) == 1 else NO_SCRIPT for script in scripts),
    )


def font_files() -> list[Path]:
    """The twelve faces' files."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = [folder / face for face in FACES]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"glyphs need the fonts that matplotlib ships; {folder} lacks {', '.join(missing)}")
    return files


def shared_letters(fonts: list[Path]) -> list[str]:
    """Letters and decimal digits without a decomposition that every font has, by code point."""
    from matplotlib.ft2font import FT2Font

    shared = set.intersection(*(set(FT2Font(str(font)).get_charmap()) for font in fonts))
    return [
        chr(code)
        for code in sorted(shared)
        if (unicodedata.category(chr(code))[0] == "L" or unicodedata.category(chr(code)) == "Nd")
        and not unicodedata.decomposition(chr(code))
    ]


def script_of(letter: str) -> str:
    """The script that the letter's Unicode name begins with; "COMMON" for digits and modifiers."""
    first = unicodedata.name(letter).split()[0]
    return first if unicodedata.category(letter) in ("Lu", "Ll", "Lo") else NO_SCRIPT


def render(letters: list[str], fonts: list[Path], size: int) -> UInt8[np.ndarray, "letters faces size size"]:
    """Letters at one type size, so that o and O differ, each centred by its ink; what juts out is cut."""
    from PIL import ImageFont

    images = np.zeros((len(letters), len(fonts), size, size), np.uint8)
    for f, font in enumerate(fonts):
        face = ImageFont.truetype(str(font), round(size * 20 / 28))
        for i, letter in enumerate(letters):
            mask = face.getmask(letter, mode="L")
            ink = np.array(mask, np.uint8).reshape(mask.size[::-1])
            for axis, extent in enumerate(ink.shape):
                cut = max(extent - size, 0)
                ink = np.take(ink, range(cut // 2, extent - (cut - cut // 2)), axis=axis)
            top, left = ((size - extent) // 2 for extent in ink.shape)
            images[i, f, top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return images


def differences(images: UInt8[np.ndarray, "letters faces size size"]) -> Float[np.ndarray, "letters letters"]:
    """The root of the mean squared pixel difference of every two letters over all faces, pixels in [0, 1]."""
    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    square = np.sum(flat**2, axis=1)
    return np.sqrt(np.maximum(square[:, None] + square - 2 * flat @ flat.T, 0) / flat.shape[1])


def merge(images: UInt8[np.ndarray, "letters faces size size"], tolerance: float) -> list[list[int]]:
    """Classes as lists of letters: letters that differ by at most ``tolerance`` are joined, and so on transitively."""
    parent = list(range(len(images)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in np.argwhere(np.triu(differences(images) <= tolerance, 1)):
        low, high = sorted((find(int(i)), find(int(j))))
        parent[high] = low
    joined: dict[int, list[int]] = defaultdict(list)
    for i in range(len(images)):
        joined[find(i)].append(i)
    return list(joined.values())
