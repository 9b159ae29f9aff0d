"""From a config to the pools of a protocol's splits."""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from metarep_jax.data.audio import AudioConfig, is_audio, load_audio
from metarep_jax.data.cache import cached, default_cache_dir, digest
from metarep_jax.data.images import Progress
from metarep_jax.data.pools import pool_of_arrays
from metarep_jax.data.protocols import PARTS, Classes, ClassSplit, Protocol, find_protocol
from metarep_jax.data.records import Records, read_records
from metarep_jax.data.source import Source, from_arrays, to_arrays
from metarep_jax.data.text import is_text, read_texts
from metarep_jax.data.tokenizer import Tokenizer
from metarep_jax.data.tokens import TextConfig, tokenised
from metarep_jax.types import Pool

HELD_BESIDE_A_STREAM = 50  # images a class: enough for any episode, and for whitening
VERSION = 1  # of how images are decoded: another number makes caches anew


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data, in which form."""

    name: str = "glyphs"
    """Images: glyphs (needs no files), omniglot, folder (one folder a class), or the name of a TFDS data set (tfds:NAME
    if it is also one of these). Text: docstrings (needs no files), banking77, clinc150, tfds-text:NAME, text (.txt
    files), wikitext2, brown, or several of the last three joined by +. Audio: synthetic-speech (needs no files), fsdd,
    audio (WAV, one folder a class), tfds-audio:NAME."""
    protocol: str | None = None
    """The class split and the test episodes; default: the data's own. An unknown name lists those that fit."""
    data_dir: Path | None = None
    """Where the data lie: the folder with omniglot/, or the folder of images, or that of prepared TFDS data sets."""
    cache_dir: Path | None = None
    """Where prepared arrays are kept; default: the user's cache folder. May be deleted at any time."""
    image_size: int | None = None
    """Pixels a side; default: 28 for glyphs and Omniglot, else the images' own size, if all have the same."""
    channels: Literal[1, 3] | None = None
    """Converts images to 1 (grey) or 3 (colour) channels; default: as they are, which must be all alike."""
    split_seed: int = 0
    """Of splits that choose classes at random."""
    per_class: int | None = None
    """At most so many images of a class are held in memory, chosen by split_seed; default: all, with stream 50."""
    stream: bool = False
    """Whether stage 1 streams its training images from the disk: for data larger than memory (folder and TFDS)."""
    workers: int = 2
    """Processes that read and decode a stream; 0: none, in this process."""
    text: TextConfig = TextConfig()
    """How text becomes rows of tokens."""
    audio: AudioConfig = AudioConfig()
    """How recordings become rows of samples."""

    def __post_init__(self):
        for name, least in (("image_size", 1), ("per_class", 1), ("split_seed", 0), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"data.{name} must be at least {least}, got {value}")
        if not self.name:
            raise ValueError(
                "data.name must not be empty; give glyphs, omniglot, folder, or the name of a TFDS data set"
            )


class Splits(NamedTuple):
    """The pools of a protocol's splits, on the device; a split without classes is an empty pool."""

    train: Pool
    val: Pool
    test: Pool
    class_names: dict[str, tuple[str, ...]]  # of "train", "val" and "test"
    protocol: Protocol
    config: DataConfig  # what was loaded, with the folders that were used
    tokenizer: Tokenizer | None = None  # of text, whose inputs are its token ids


def load_splits(config: DataConfig, progress: Progress | None = None) -> Splits:
    """The data of ``config``, split by its protocol, on the default device.

    Args:
      config: which data.
      progress: told how many images of how many are decoded, where that takes long.

    Raises:
      ValueError: for an unknown data set or protocol (lists what fits), or images that cannot be used (names them).
      FileNotFoundError: when data are missing: says which files are wanted, and where.
    """
    config = resolved(config)
    protocol = find_protocol(config.protocol, config.name.partition("+")[0])  # of corpora that are joined, the first's
    cache_dir, tokenizer = config.cache_dir, None
    assert cache_dir is not None

    def split(names: tuple[str, ...], group: tuple[str, ...]) -> ClassSplit:
        return protocol.split(Classes(names, group, config.split_seed, config.data_dir))

    if is_text(config.name):
        texts = read_texts(config.name, config.data_dir, cache_dir)
        parts = split(texts.names, texts.group)
        tokenizer, source = tokenised(texts, parts[0], config.text, cache_dir)
    else:
        source = read_source(config, progress)
        parts = split(source.names, source.group)
    train, val, test = (part_of(source, classes) for classes in parts)
    names = {part: tuple(source.names[c] for c in classes) for part, classes in zip(PARTS, parts)}
    return Splits(train, val, test, names, protocol, config, tokenizer)


def resolved(config: DataConfig) -> DataConfig:
    """The config with its default folder for caches filled in."""
    return config if config.cache_dir else dataclasses.replace(config, cache_dir=default_cache_dir())


def part_of(source: Source, classes: list[int]) -> Pool:
    """The pool of some of the classes, numbered anew from 0."""
    number = np.full(len(source.names) + 1, -1, np.int32)
    number[classes] = np.arange(len(classes))
    label = number[source.label]
    rows = np.flatnonzero(label >= 0)
    return pool_of_arrays(source.images[rows], label[rows], classes=len(classes))


def list_records(config: DataConfig) -> Records:
    """The data set before its images are decoded; a folder or a TFDS data set."""
    assert config.cache_dir is not None
    if config.name == "folder":
        from metarep_jax.data.image_folder import list_image_folder

        return list_image_folder(config.data_dir)
    from metarep_jax.data.tfds_sources import tfds_records

    return tfds_records(config.name.removeprefix("tfds:"), config.data_dir, config.cache_dir)


def read_source(config: DataConfig, progress: Progress | None) -> Source:
    """All classes of the data set, as arrays on the host."""
    cache_dir, size = config.cache_dir, config.image_size
    assert cache_dir is not None
    if config.name == "glyphs":
        from metarep_jax.data.glyphs import load_glyphs

        source = load_glyphs(cache_dir, size or 28)
        return source._replace(images=np.repeat(source.images, config.channels or 1, axis=-1))
    if config.name == "omniglot":
        from metarep_jax.data.omniglot import load_omniglot

        channels = config.channels or 1
        return load_omniglot(config.data_dir, cache_dir, size=size or 28, channels=channels, progress=progress)
    if is_audio(config.name):
        return load_audio(config.name, config.data_dir, config.audio, cache_dir)
    records = list_records(config)
    held = {"size": size, "channels": config.channels, "per_class": config.per_class, "seed": config.split_seed}
    if config.stream and config.per_class is None:
        held["per_class"] = HELD_BESIDE_A_STREAM
    name = "folder" if config.name == "folder" else "tfds"
    key = digest([VERSION, records.key, *held.items()])
    return from_arrays(
        cached(cache_dir, name, key, lambda: to_arrays(read_records(records, **held, progress=progress)))
    )
