"""From a config to the pools of a protocol's parts."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from metarep_jax.data.array_cache import cached, digest, digest_of_arrays
from metarep_jax.data.data_config import DataConfig, resolved
from metarep_jax.data.divisions import PARTS, UNLABELLED, Division, Labelled
from metarep_jax.data.images.encoded_images import Records, read_records, some_of_each
from metarep_jax.data.images.image_decoding import Progress
from metarep_jax.data.pools import pool_of_arrays
from metarep_jax.data.protocols import Protocol, divide, find_protocol, protocol_of_parts
from metarep_jax.data.sources import AnySource
from metarep_jax.data.text.named_texts import Texts
from metarep_jax.data.text.tokenizer import Tokenizer
from metarep_jax.data.text.tokens import tokenised
from metarep_jax.types import Pool

log = logging.getLogger(__name__)
VERSION = 3  # of how images are decoded: another number makes caches anew


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

    @property
    def name(self) -> str:
        """What the data are called."""
        return self.config.get("called", self.config.name)

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
    protocol = find_protocol(config.protocol, config.name.partition("+")[0])  # of corpora that are joined, the first's
    source = config.read(progress)
    protocol = own_protocol(config, protocol, source)
    division = divide(protocol, labelled(source, config))
    if isinstance(source, Texts):
        lines = [line for line, part in zip(source.lines, division.part) if part == 0]
        assert config.cache_dir is not None
        tokenizer, rows = tokenised(source, lines, source.tokens, config.cache_dir)
        return assemble(rows.images, divide(protocol, labelled(rows, config)), protocol, config, tokenizer)
    if isinstance(source, Records):
        rows = some_of_each(division.groups, source.reading.held_of_each, config.split_seed)
        beside = (source.label,) if source.reading.stream else ()
        images = read_images(source, rows, config, progress)
        return assemble(images, division.at(rows), protocol, config, beside=beside)
    return assemble(source.images, division, protocol, config)


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


def own_protocol(config: DataConfig, protocol: Protocol, source: AnySource) -> Protocol:
    """The protocol; where the config names none and the data have none of their own, that which their layout asks for:
    of their parts, or of no classes."""
    if config.protocol is not None or protocol.datasets:
        return protocol
    where = str(config.data_dir or config.name)
    if source.part is None and set(source.names) == {UNLABELLED}:
        log.info("%s: examples without classes, one in ten held out (--data.protocol unlabelled)", where)
        return find_protocol("unlabelled", config.name)
    return protocol_of_parts(labelled(source, config), where) or protocol


def labelled(source: AnySource, config: DataConfig) -> Labelled:
    """What a protocol divides."""
    return Labelled(
        source.names,
        source.group,
        source.label,
        source.part,
        config.split_seed,
        config.data_dir,
        config.get("held_out"),
    )


def read_images(
    records: Records, rows: np.ndarray, config: DataConfig, progress: Progress | None
) -> UInt8[np.ndarray, "n h w c"]:
    """The images of those rows, decoded once and then from the cache."""
    assert config.cache_dir is not None
    size, channels = records.reading.image_size, records.reading.channels
    chosen = "" if len(rows) == len(records.label) else digest_of_arrays([rows])
    key = digest([VERSION, records.key, size, channels, records.reading.resample, chosen])

    def read() -> dict[str, np.ndarray]:
        return {"images": read_records(records, rows, size=size, channels=channels, progress=progress).images}

    return cached(config.cache_dir, "folder" if config.name == "folder" else "tfds", key, read)["images"]
