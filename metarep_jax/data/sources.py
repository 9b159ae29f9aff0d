"""Data sources: factories that read a data set, by the name under which ``--data`` finds them.

A source of your own is a function of this kind, named by its dotted path: it returns a ``Source`` of host arrays and
class names (or ``Records``, images that are still encoded, or ``Texts``, lines that are still words), its keywords are
flags, and of ``data_dir``, ``cache_dir`` and ``progress`` it takes what it needs.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from metarep_jax.choices import find_factory
from metarep_jax.data.audio.recordings import AudioConfig, load_audio
from metarep_jax.data.images.encoded_images import Reading, Records
from metarep_jax.data.images.image_decoding import Progress
from metarep_jax.data.source_arrays import Source
from metarep_jax.data.text.named_texts import CORPORA, Texts, read_texts
from metarep_jax.data.text.tokens import TextConfig

AnySource = Source | Records | Texts


def glyphs(*, image_size: int = 28, channels: Literal[1, 3] = 1, cache_dir: Path) -> Source:
    """Letters drawn from fonts; needs no files.

    Args:
      image_size: pixels a side.
      channels: 1 (grey) or 3 (colour).
    """
    from metarep_jax.data.images.glyphs import load_glyphs

    reading = Reading(image_size=image_size, channels=channels)
    source = load_glyphs(cache_dir, reading.image_size or 28)
    return source._replace(images=np.repeat(source.images, channels, axis=-1))


def omniglot(
    *,
    image_size: int = 28,
    channels: Literal[1, 3] = 1,
    data_dir: Path | None,
    cache_dir: Path,
    progress: Progress | None = None,
) -> Source:
    """Omniglot, from the files of its release in DATA_DIR/omniglot.

    Args:
      image_size: pixels a side.
      channels: 1 (grey) or 3 (colour).
    """
    from metarep_jax.data.images.omniglot import load_omniglot

    Reading(image_size=image_size, channels=channels)
    return load_omniglot(data_dir, cache_dir, size=image_size, channels=channels, progress=progress)


def image_folder(
    *,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bilinear",
    per_class: int | None = None,
    stream: bool = False,
    workers: int = 2,
    data_dir: Path | None,
) -> Records:
    """Images in a folder of DATA_DIR a class, these also within folders train, val and test; or without classes.

    Args:
      image_size: pixels a side, cut and resized; default: the images' own size, if all have the same.
      channels: converts to 1 (grey) or 3 (colour) channels; default: as they are, which must be all alike.
      resample: the filter that resizes: bilinear, as torchvision's transforms, or sharper and slower.
      per_class: at most so many images of a class are held in memory, chosen by split_seed; default: all, streaming 50.
      stream: whether stage 1 streams its training images from the disk, for data larger than memory.
      workers: processes that read and decode a stream; 0: none, in this process.
    """
    from metarep_jax.data.images.image_folder import list_image_folder

    reading = Reading(image_size, channels, resample, per_class, stream, workers)
    return list_image_folder(data_dir)._replace(reading=reading)


def tfds_images(
    *,
    dataset: str,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bilinear",
    per_class: int | None = None,
    stream: bool = False,
    workers: int = 2,
    data_dir: Path | None,
    cache_dir: Path,
) -> Records:
    """A data set of TFDS by its name; its own splits are taken together.

    Args:
      dataset: its name.
      image_size: pixels a side, cut and resized; default: the images' own size, if all have the same.
      channels: converts to 1 (grey) or 3 (colour) channels; default: as they are, which must be all alike.
      resample: the filter that resizes: bilinear, as torchvision's transforms, or sharper and slower.
      per_class: at most so many images of a class are held in memory, chosen by split_seed; default: all, streaming 50.
      stream: whether stage 1 streams its training images from the disk, for data larger than memory.
      workers: processes that read and decode a stream; 0: none, in this process.
    """
    from metarep_jax.data.images.tfds_images import tfds_records

    reading = Reading(image_size, channels, resample, per_class, stream, workers)
    return tfds_records(dataset, data_dir, cache_dir)._replace(reading=reading)


def texts(
    *,
    corpus: str,
    length: int = 64,
    vocabulary: int = 8192,
    lowercase: bool = True,
    tokenizer_from: Path | None = None,
    data_dir: Path | None,
    cache_dir: Path,
) -> Texts:
    """Sentences with classes, or running text, as rows of tokens.

    Args:
      corpus: its name.
      length: tokens of a row, special ones included; longer sentences are cut.
      vocabulary: tokens at most, special ones and single bytes included.
      lowercase: whether capitals become small letters.
      tokenizer_from: a run's folder or a tokenizer.json, whose tokenizer is used; default: one is trained on the
        training part.
    """
    tokens = TextConfig(length=length, vocabulary=vocabulary, lowercase=lowercase, tokenizer_from=tokenizer_from)
    return read_texts(corpus, data_dir, cache_dir)._replace(tokens=tokens)


def recordings(*, kind: str, rate: int = 8000, seconds: float = 1.0, data_dir: Path | None, cache_dir: Path) -> Source:
    """Recordings of one rate and length.

    Args:
      kind: which recordings.
      rate: samples a second; recordings at another rate are resampled, which is said.
      seconds: length of a row; of longer recordings the middle is kept, shorter ones are filled up.
    """
    return load_audio(kind, data_dir, AudioConfig(rate=rate, seconds=seconds), cache_dir)


def spoken_digits(
    *,
    rate: int = 8000,
    seconds: float = 1.0,
    label: Literal["digit", "speaker"] = "digit",
    data_dir: Path | None,
    cache_dir: Path,
) -> Source:
    """The Free Spoken Digit Dataset.

    Args:
      rate: samples a second; recordings at another rate are resampled, which is said.
      seconds: length of a row; of longer recordings the middle is kept, shorter ones are filled up.
      label: what the classes are.
    """
    from metarep_jax.data.audio.recordings import fsdd_source, load_fsdd

    return fsdd_source(load_fsdd(data_dir, AudioConfig(rate=rate, seconds=seconds), cache_dir), label)


def arrays(*, called: str = "arrays") -> Source:
    """A user's own arrays, which ``splits_from_arrays`` takes; there is nothing to read.

    Args:
      called: what the user calls them.
    """
    raise ValueError(f"{called} have no name to load them by; give them to metarep_jax.data.splits_from_arrays")


SOURCES: dict[str, Callable[..., AnySource]] = {
    "glyphs": glyphs,
    "omniglot": omniglot,
    "folder": image_folder,
    **{name: partial(texts, corpus=name) for name in ("docstrings", "banking77", "clinc150", *CORPORA)},
    **{name: partial(recordings, kind=name) for name in ("synthetic-speech", "audio")},
    "fsdd": spoken_digits,
    "arrays": arrays,
}
OF_TFDS: dict[str, Callable[[str], Callable[..., AnySource]]] = {  # by what a name begins with
    "tfds:": lambda name: partial(tfds_images, dataset=name.removeprefix("tfds:")),
    "tfds-text:": lambda name: partial(texts, corpus=name),
    "tfds-audio:": lambda name: partial(recordings, kind=name),
}


@lru_cache(maxsize=64)
def find_source(name: str) -> Callable[..., Any]:
    """The source of that name, or of that dotted path; any other name is one of TFDS's, known when it is read.

    Raises:
      ValueError: for a dotted path that cannot be imported.
    """
    if name in SOURCES:
        return SOURCES[name]
    if of_tfds := next((source for start, source in OF_TFDS.items() if name.startswith(start)), None):
        return of_tfds(name)
    if "+" in name:
        return partial(texts, corpus=name)
    if name.partition(":")[2].isidentifier():
        return find_factory(name, SOURCES, "data set")
    return partial(tfds_images, dataset=name)
