"""Omniglot: 1,623 characters of 50 alphabets, 20 drawings each, from the files of its release (Lake et al. 2015).

https://github.com/brendenlake/omniglot, ``python/images_background.zip`` and ``python/images_evaluation.zip``. They
are prepared as a TFDS data set of our own, because the one in TFDS cannot be prepared without TensorFlow.
"""

import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from metarep_jax.data.array_cache import cached, digest, file_facts
from metarep_jax.data.images.encoded_images import Reading, Records, read_records
from metarep_jax.data.images.image_decoding import Progress
from metarep_jax.data.images.tfds_images import TfdsImages, prepare, quiet
from metarep_jax.data.source_arrays import Source, from_arrays, to_arrays

PARTS = ("background", "evaluation")
DRAWINGS = {"background": 964 * 20, "evaluation": 659 * 20}
VERSION = 1  # of what is made of the files: another number makes caches anew


def load_omniglot(
    data_dir: Path | None, cache_dir: Path, *, size: int = 28, channels: int = 1, progress: Progress | None = None
) -> Source:
    """All of Omniglot, uint8, strokes white (255) on black; groups of classes are "background" and "evaluation".

    The 105 × 105 drawings are reduced by Lanczos' filter, as in MAML's preparation of Omniglot. Class names are
    ``ALPHABET/characterNN``, in order.

    Args:
      data_dir: the folder that holds the two zip files or the folders extracted from them, or holds them in
        ``omniglot/``.
      cache_dir: keeps the prepared data set and arrays.
      size: pixels a side.
      channels: 1 or 3.
      progress: told the number of drawings done.

    Raises:
      FileNotFoundError: says which files are wanted, and where.
      ValueError: when drawings are missing or damaged.
    """
    places = find_parts(data_dir)
    facts = [fact for place in places.values() for fact in _facts(place)]
    key = digest([VERSION, *facts])

    def read() -> dict[str, np.ndarray]:
        records = omniglot_records(places, cache_dir / "omniglot-tfds" / key)
        source = read_records(records, size=size, channels=channels, progress=progress, after=lambda x: 255 - x)
        return to_arrays(source)

    return from_arrays(cached(cache_dir, "omniglot", digest([key, size, channels]), read))


def find_parts(data_dir: Path | None) -> dict[str, Path]:
    """Where the two parts are: a zip file or a folder each."""
    wanted = "images_background.zip and images_evaluation.zip (or the folders extracted from them)"
    if data_dir is None:
        raise FileNotFoundError(
            f"Omniglot needs {wanted} in DATA_DIR/omniglot; give --data.data-dir DATA_DIR or set METAREP_DATA"
        )
    found = {}
    for part in PARTS:
        places = [root / f"images_{part}{end}" for root in (data_dir / "omniglot", data_dir) for end in (".zip", "")]
        here = [place for place in places if (place.is_file() if place.suffix else place.is_dir())]
        if not here:
            raise FileNotFoundError(
                f"Omniglot needs {wanted} in {data_dir / 'omniglot'} or {data_dir}; images_{part} is missing. They are "
                "in the folder python of https://github.com/brendenlake/omniglot; --data.data-dir or METAREP_DATA say "
                "where they lie"
            )
        found[part] = here[0]
    return found


def drawings(place: Path) -> Iterator[tuple[str, bytes]]:
    """The PNG files of one part in order of their names ``ALPHABET/characterNN/NNNN_DD.png``, and their content."""
    if place.is_dir():
        for file in sorted(place.glob("*/*/*.png")):
            yield file.relative_to(place).as_posix(), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                parts = name.split("/")
                if name.endswith(".png") and len(parts) >= 3 and not name.startswith("__MACOSX"):
                    yield "/".join(parts[-3:]), archive.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{place} is damaged ({error}); get it again") from error


def omniglot_records(places: dict[str, Path], folder: Path) -> Records:
    """The prepared TFDS data set, made in ``folder`` if it is not there yet."""
    with quiet():
        builder = _builder_class()(places, data_dir=folder, file_format="array_record")
    prepare(builder)
    images, names, group, label = [], [], [], []
    for part in PARTS:
        source = TfdsImages.of(builder, part, "image")
        if len(source) != DRAWINGS[part]:
            raise ValueError(f"{places[part]} should hold {DRAWINGS[part]} drawings, it holds {len(source)}")
        drawn = np.array([source.feature(row, "character").decode() for row in range(len(source))])
        characters, index = np.unique(drawn, return_inverse=True)
        label.append(index.ravel() + len(names))
        names += characters.tolist()
        group += [part] * len(characters)
        images.append(source)
    reading = Reading(resample="lanczos")
    labels = np.concatenate(label)
    return Records(_Joined(images), labels, tuple(names), tuple(group), "Omniglot", str(folder), reading=reading)


class _Joined(Sequence):
    """Several sequences one after the other."""

    def __init__(self, parts: list[TfdsImages]):
        self._parts, self._ends = parts, np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, row: Any) -> Any:
        part = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[part][row - (int(self._ends[part - 1]) if part else 0)]


@lru_cache(maxsize=1)
def _builder_class() -> Any:
    """Defined in a function because TFDS is imported only where it is used."""
    import tensorflow_datasets as tfds

    class MetarepOmniglot(tfds.core.GeneratorBasedBuilder):
        """Omniglot from the files of its release; needs no TensorFlow."""

        VERSION = tfds.core.Version("1.0.0")
        code_path = None  # TFDS would look for checksums of downloads beside this file; there are none

        def __init__(self, places: dict[str, Path], **kwargs: Any):
            self._places = places
            super().__init__(**kwargs)

        def _info(self) -> Any:
            image = tfds.features.Image(shape=(105, 105, 1), encoding_format="png")
            features = tfds.features.FeaturesDict({"image": image, "character": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features, description="Omniglot, Lake et al. 2015")

        def _split_generators(self, dl_manager: Any) -> Any:
            del dl_manager
            return {part: self._generate_examples(place) for part, place in self._places.items()}

        def _generate_examples(self, place: Path) -> Any:
            for name, png in drawings(place):
                yield name, {"image": png, "character": name.rpartition("/")[0]}

    return MetarepOmniglot


def _facts(place: Path) -> list[Any]:
    if place.is_file():
        return [file_facts(place)]
    return [(file.relative_to(place).as_posix(), *file_facts(file)[1:]) for file in sorted(place.glob("*/*/*.png"))]
