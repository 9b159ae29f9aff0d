"""From a config to the pools of a protocol's splits."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from metarep_jax.data.audio import AudioConfig, is_audio, load_audio
from metarep_jax.data.cache import cached, default_cache_dir, digest, digest_of_arrays
from metarep_jax.data.divisions import PARTS, UNLABELLED, Division, Labelled
from metarep_jax.data.images import Progress
from metarep_jax.data.pools import pool_of_arrays
from metarep_jax.data.protocols import Protocol, divide, find_protocol, protocol_of_parts
from metarep_jax.data.records import Records, read_records, some_of_each
from metarep_jax.data.source import Source
from metarep_jax.data.text import Texts, is_text, read_texts
from metarep_jax.data.tokenizer import Tokenizer
from metarep_jax.data.tokens import TextConfig, tokenised
from metarep_jax.types import Pool

log = logging.getLogger(__name__)
ARRAYS = "arrays"  # the data set's name where a user gave arrays
HELD_BESIDE_A_STREAM = 50  # images a class: enough for any episode, and for whitening
FOLDERS = ("folder", "audio")  # data that may come in parts, which then are the default protocol's
VERSION = 2  # of how images are decoded: another number makes caches anew


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data, in which form."""

    name: str = "glyphs"
    """Images: glyphs (needs no files), omniglot, folder (a folder a class, also within folders train, val and test; or
    images without classes), or the name of a TFDS data set (tfds:NAME if it is also one of these). Text: docstrings
    (needs no files), banking77, clinc150, tfds-text:NAME, text (.txt files), wikitext2, brown, or several of the last
    three joined by +. Audio: synthetic-speech (needs no files), fsdd, audio (WAV, in folders as of images),
    tfds-audio:NAME."""
    protocol: str | None = None
    """What is held out, and the test episodes; default: the data's own. New classes: random-classes. Fixed classes:
    given-parts, share-of-each-class. An unknown name lists those that fit."""
    data_dir: Path | None = None
    """Where the data lie: the folder with omniglot/, or the folder of images, or that of prepared TFDS data sets."""
    cache_dir: Path | None = None
    """Where prepared arrays are kept; default: the user's cache folder. May be deleted at any time."""
    image_size: int | None = None
    """Pixels a side; default: 28 for glyphs and Omniglot, else the images' own size, if all have the same."""
    channels: Literal[1, 3] | None = None
    """Converts images to 1 (grey) or 3 (colour) channels; default: as they are, which must be all alike."""
    split_seed: int = 0
    """Of splits that choose classes or examples at random."""
    held_out: float = 0.2
    """share-of-each-class: the share of each class's examples for validation, and as much for testing."""
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
                raise ValueError(f"--data.{name.replace('_', '-')} must be at least {least}, got {value}")
        if not 0 < self.held_out < 0.5:
            raise ValueError(f"--data.held-out must lie between 0 and 0.5, got {self.held_out}")
        if not self.name:
            raise ValueError(
                "data.name must not be empty; give glyphs, omniglot, folder, or the name of a TFDS data set"
            )


class Splits(NamedTuple):
    """The pools of a protocol's parts, on the device; a part without examples is an empty pool."""

    train: Pool
    val: Pool
    test: Pool
    class_names: dict[str, tuple[str, ...]]  # of "train", "val" and "test"
    protocol: Protocol
    config: DataConfig  # what was loaded, with the folders that were used
    tokenizer: Tokenizer | None = None  # of text, whose inputs are its token ids
    fixed_classes: bool = False  # whether the parts hold the same classes, and test examples alone are new
    labelled: bool = True  # whether training examples have classes
    digest: str = ""  # of all arrays, labels, names and the split: other data have another one

    def describe(self) -> str:
        """What was held out, in words for captions."""
        rows = [pool.label.shape[0] for pool in (self.train, self.val, self.test)]
        purposes = ("training", "validation", "testing")
        sizes = ", ".join(f"{count:,} for {purpose}" for count, purpose in zip(rows, purposes) if count)
        classes = {part: len(names) for part, names in self.class_names.items()}
        if self.fixed_classes and rows[2]:
            return f"the same {classes['train']} classes in training and testing, of other examples: {sizes}"
        if not self.labelled or max(classes.values()) <= 1:
            judged = f", of {classes['test']} classes" if classes["test"] > 1 else ""
            return f"examples without classes: {sizes}{judged}"
        if not rows[2]:
            return f"nothing held out for testing; {classes['train']} classes: {sizes}"
        return (
            f"{classes['test']} classes for testing that training does not see, {classes['train']} for training"
            + (f", {classes['val']} for validation" if classes["val"] else "")
            + f"; examples: {sizes}"
        )


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
    if config.name == ARRAYS:
        raise ValueError("arrays have no name to load them by; give them to metarep_jax.data.splits_from_arrays")
    protocol = find_protocol(config.protocol, config.name.partition("+")[0])  # of corpora that are joined, the first's
    tokenizer, streamed = None, ()
    assert config.cache_dir is not None
    if is_text(config.name):
        texts = read_texts(config.name, config.data_dir, config.cache_dir)
        division = divide(protocol, labelled(texts, config))
        lines = [line for line, part in zip(texts.lines, division.part) if part == 0]
        tokenizer, source = tokenised(texts, lines, config.text, config.cache_dir)
        division, inputs = divide(protocol, labelled(source, config)), source.images
    elif config.name in ("glyphs", "omniglot") or is_audio(config.name):
        source = read_source(config, progress)
        protocol = own_protocol(config, source) or protocol
        division, inputs = divide(protocol, labelled(source, config)), source.images
    else:
        records = list_records(config)
        protocol = own_protocol(config, records) or protocol
        division = divide(protocol, labelled(records, config))
        rows = some_of_each(division.groups, held_of_each(config), config.split_seed)
        streamed = (records.label,) if config.stream else ()
        inputs, division = read_images(records, rows, config, progress), division.at(rows)
    return assemble(inputs, division, protocol, config, tokenizer, streamed)


def assemble(
    inputs: Shaped[np.ndarray, "n ..."],
    division: Division,
    protocol: Protocol,
    config: DataConfig,
    tokenizer: Tokenizer | None = None,
    beside: Sequence[np.ndarray] = (),
) -> Splits:
    """The splits of examples and their division; ``beside`` enters the digest too."""
    rows = [np.flatnonzero(division.part == p) for p in range(len(PARTS))]
    pools = [
        pool_of_arrays(inputs[own], division.label[own], classes=len(division.names[part]))
        for own, part in zip(rows, PARTS)
    ]
    parts = [np.asarray(leaf) for pool in pools for leaf in (pool.inputs, pool.label)]
    train, val, test = pools
    return Splits(
        train=train,
        val=val,
        test=test,
        class_names=division.names,
        protocol=protocol,
        config=config,
        tokenizer=tokenizer,
        fixed_classes=division.fixed_classes,
        labelled=division.labelled,
        digest=digest_of_arrays([*parts, *beside], [division.names, tokenizer.digest if tokenizer else ""]),
    )


def own_protocol(config: DataConfig, source: Source | Records) -> Protocol | None:
    """The protocol that a folder's own layout asks for where the config names none: of its parts, or of no classes."""
    if config.protocol is not None or config.name not in FOLDERS:
        return None
    examples = labelled(source, config)
    if examples.part is None and set(source.names) == {UNLABELLED}:
        log.info("%s: examples without classes, one in ten held out (--data.protocol unlabelled)", config.data_dir)
        return find_protocol("unlabelled", config.name)
    return protocol_of_parts(examples, str(config.data_dir))


def labelled(source: Source | Records | Texts, config: DataConfig) -> Labelled:
    """What a protocol divides."""
    return Labelled(
        source.names, source.group, source.label, source.part, config.split_seed, config.data_dir, config.held_out
    )


def resolved(config: DataConfig) -> DataConfig:
    """The config with its default folder for caches filled in, and ``~`` in folders."""
    expanded = {
        name: folder.expanduser() for name in ("data_dir", "cache_dir") if (folder := getattr(config, name)) is not None
    }
    return dataclasses.replace(config, **{"cache_dir": default_cache_dir(), **expanded})


def held_of_each(config: DataConfig) -> int | None:
    """How many images of a class are held in memory at most, in each part."""
    return HELD_BESIDE_A_STREAM if config.stream and config.per_class is None else config.per_class


def list_records(config: DataConfig) -> Records:
    """The data set before its images are decoded; a folder or a TFDS data set."""
    assert config.cache_dir is not None
    if config.name == "folder":
        from metarep_jax.data.image_folder import list_image_folder

        return list_image_folder(config.data_dir)
    from metarep_jax.data.tfds_sources import tfds_records

    return tfds_records(config.name.removeprefix("tfds:"), config.data_dir, config.cache_dir)


def read_images(
    records: Records, rows: np.ndarray, config: DataConfig, progress: Progress | None
) -> UInt8[np.ndarray, "n h w c"]:
    """The images of those rows, decoded once and then from the cache."""
    assert config.cache_dir is not None
    size, channels = config.image_size, config.channels
    chosen = "" if len(rows) == len(records.label) else digest_of_arrays([rows])
    key = digest([VERSION, records.key, size, channels, chosen])

    def read() -> dict[str, np.ndarray]:
        return {"images": read_records(records, rows, size=size, channels=channels, progress=progress).images}

    return cached(config.cache_dir, "folder" if config.name == "folder" else "tfds", key, read)["images"]


def read_source(config: DataConfig, progress: Progress | None) -> Source:
    """All of glyphs, Omniglot, or recordings, as arrays on the host."""
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
    return load_audio(config.name, config.data_dir, config.audio, cache_dir)
