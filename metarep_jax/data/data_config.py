"""Which data: a source by its name or dotted path, its own settings, and those that all sources share."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarep_jax.choices import Choice
from metarep_jax.data.array_cache import default_cache_dir
from metarep_jax.data.images.encoded_images import Records
from metarep_jax.data.images.image_decoding import Progress
from metarep_jax.data.source_arrays import Source
from metarep_jax.data.sources import SOURCES, AnySource, find_source
from metarep_jax.data.text.named_texts import Texts


def what_all_share(
    *,
    protocol: str | None = None,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    split_seed: int = 0,
    held_out: float = 0.2,
) -> None:
    """Settings that every data set has beside its own.

    Args:
      protocol: what is held out, and the test episodes; default: the data's own. New classes: random-classes. Fixed
        classes: given-parts, share-of-each-class. An unknown name lists those that fit.
      data_dir: where the data lie: the folder with omniglot/, or the folder of images, or that of prepared TFDS data
        sets.
      cache_dir: where prepared arrays are kept; default: the user's cache folder. May be deleted at any time.
      split_seed: of splits that choose classes or examples at random.
      held_out: share-of-each-class: the share of each class's examples for validation, and as much for testing.
    """
    del protocol, data_dir, cache_dir
    if split_seed < 0:
        raise ValueError(f"--data.split-seed must be at least 0, got {split_seed}")
    if not 0 < held_out < 0.5:
        raise ValueError(f"--data.held-out must lie between 0 and 0.5, got {held_out}")


class DataConfig(Choice):
    """Which data, with that source's own settings: ``DataConfig("folder", data_dir=Path("pets"), image_size=32)``.

    By name: those of ``sources.SOURCES``; corpora joined by +, such as brown+wikitext2; any image data set of TFDS,
    also as tfds:NAME; tfds-text:NAME; tfds-audio:NAME. Or a source of your own, as my_module:my_source.
    """

    what = "data set"
    also = "corpora joined by + (brown+wikitext2), any image data set of TFDS, tfds-text:NAME, tfds-audio:NAME"
    known: Mapping[str, Callable[..., AnySource]] = SOURCES
    supplied = frozenset({"data_dir", "cache_dir", "progress"})
    default = "glyphs"
    common = what_all_share

    def __init__(self, name: str = "", keywords: Sequence[tuple[str, Any]] = (), **more: Any):
        super().__init__(name, keywords, **more)
        what_all_share(**{key: value for key, value in self.keywords if key in ("split_seed", "held_out")})

    @classmethod
    def factory_of(cls, name: str) -> Callable[..., Any]:
        """The source of that name; one that is not known here is looked for in TFDS when it is read."""
        return find_source(name)

    @property
    def protocol(self) -> str | None:
        """The protocol's name; None: the data's own."""
        return self.get("protocol")

    @property
    def data_dir(self) -> Path | None:
        """Where the data lie."""
        return self.get("data_dir")

    @property
    def takes_data_dir(self) -> bool:
        """Whether the source reads files of the user's."""
        return "data_dir" in inspect.signature(self.factory).parameters

    @property
    def cache_dir(self) -> Path | None:
        """Where prepared arrays are kept; None: the user's cache folder."""
        return self.get("cache_dir")

    @property
    def split_seed(self) -> int:
        """Of splits that choose at random."""
        return self.get("split_seed")

    def read(self, progress: Progress | None = None) -> AnySource:
        """Calls the source.

        Raises:
          ValueError, FileNotFoundError: by the source; and when it returns something else than data.
        """
        supplied = {"data_dir": self.data_dir, "cache_dir": self.cache_dir or default_cache_dir(), "progress": progress}
        own = {key: value for key, value in self.keywords if key not in shared_keywords()}
        takes = inspect.signature(self.factory).parameters
        if self.data_dir is not None and not self.takes_data_dir:
            raise ValueError(
                f"the data set {self.name} reads no files, so that --data.data-dir {self.data_dir} would be passed "
                "over; leave it out, or choose what is read, such as --data folder"
            )
        source = self.factory(**own, **{key: value for key, value in supplied.items() if key in takes})
        if not isinstance(source, Source | Records | Texts):
            raise ValueError(
                f"data set {self.name} returned {type(source).__name__}, wanted is a metarep_jax.data.Source"
            )
        return checked_source(source, self.name) if isinstance(source, Source) else source


def shared_keywords() -> frozenset[str]:
    """The settings of ``what_all_share``."""
    return frozenset(inspect.signature(what_all_share).parameters)


def resolved(config: DataConfig) -> DataConfig:
    """The config with its default folder for caches filled in."""
    return config if config.cache_dir else dataclasses.replace(config, cache_dir=default_cache_dir())


def checked_source(source: Source, what: str) -> Source:
    """The arrays of a source of a user's own, checked; ``what`` names it in messages.

    Raises:
      ValueError: for labels that are not numbers of its classes, or lists whose lengths differ.
    """
    label, classes = np.asarray(source.label), len(source.names)
    if label.shape != (len(source.images),) or label.dtype.kind not in "iu":
        raise ValueError(f"{what}: wanted is one integer label an example, got {label.dtype} of shape {label.shape}")
    if len(label) and not 0 <= label.min() <= label.max() < classes:
        raise ValueError(f"{what}: there are {classes} names of classes and labels from {label.min()} to {label.max()}")
    group = tuple(source.group) or ("",) * classes
    for name, own, wanted in (("group", group, classes), ("part", source.part, len(label))):
        if own is not None and len(own) != wanted:
            raise ValueError(f"{what}: {name} has {len(own)} entries, wanted are {wanted}")
    part = None if source.part is None else np.asarray(source.part, np.int32)
    return Source(np.asarray(source.images), label.astype(np.int32), tuple(source.names), group, part)
