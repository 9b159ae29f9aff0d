"""Any image data set of TFDS by name, without TensorFlow: prepared as array_record, read by random access."""

import contextlib
import difflib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarep_jax.data.array_cache import cached, digest
from metarep_jax.data.images.encoded_images import Records

log = logging.getLogger(__name__)
PATIENCE = 5  # seconds until a server counts as out of reach


class TfdsImages(Sequence):
    """The encoded images of a TFDS data source, by row. Picklable."""

    def __init__(self, source: Any, image: str):
        self._source, self._image = source, image

    @classmethod
    def of(cls, builder: Any, split: str, image: str) -> "TfdsImages":
        """Of one split of a prepared builder; images stay encoded."""
        import tensorflow_datasets as tfds

        with quiet():
            return cls(builder.as_data_source(split=split, decoders={image: tfds.decode.SkipDecoding()}), image)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: Any) -> Any:
        return self._source[row][self._image]

    def feature(self, row: int, name: str) -> Any:
        """Another feature of a row."""
        return self._source[row][name]


def tfds_records(name: str, data_dir: Path | None, cache_dir: Path) -> Records:
    """All examples of the data set's labelled splits together (classes, not examples, are split afterwards).

    It is looked for in ``data_dir``, in ``data_dir/tfds`` and in TFDS's own folder; one that is nowhere prepared is
    prepared in ``cache_dir/tfds``, if its generator needs no TensorFlow. Labels are read once and kept in
    ``cache_dir``.

    Raises:
      ValueError: for an unknown name (lists the nearest and what exists), a data set without images or labels, and
        one that cannot be prepared here (says how else).
    """
    builder = find_builder(name, data_dir, cache_dir)
    image, label = image_and_label(builder, name)
    files = TfdsImages.of(builder, "all", image)
    key = digest([name, str(builder.info.version), str(builder.data_dir), len(files)])

    def read_labels() -> dict[str, np.ndarray]:
        return {"label": np.array([int(files.feature(row, label)) for row in range(len(files))], np.int32)}

    labels = cached(cache_dir, f"tfds-{name.replace('/', '_').replace(':', '_')}-labels", key, read_labels)["label"]
    kept = np.flatnonzero(labels >= 0)  # -1 marks rows without a label
    if len(kept) < len(labels):
        log.info("%s: %d examples without a label are left out", name, len(labels) - len(kept))
    names = tuple(builder.info.features[label].names)
    return Records(_Rows(files, kept), labels[kept], names, ("",) * len(names), f"TFDS data set {name}", key)


class _Rows(Sequence):
    """Some rows of a sequence."""

    def __init__(self, files: TfdsImages, rows: np.ndarray):
        self._files, self._rows = files, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        return self._files[int(self._rows[row])]


def find_builder(name: str, data_dir: Path | None, cache_dir: Path) -> Any:
    """A builder of the data set, prepared as array_record."""
    import tensorflow_datasets as tfds

    places, in_other_format = tfds_places(data_dir, cache_dir), []
    for place in places:
        builder = _builder(name, place)
        if builder is None or not builder.is_prepared():
            continue
        if builder.info.file_format.value == "array_record":
            return builder
        in_other_format.append(f"{builder.data_dir} ({builder.info.file_format.value})")
    builder = _builder(name, cache_dir / "tfds")
    if builder is None:
        known = sorted(tfds.list_builders(with_community_datasets=False))
        near = difflib.get_close_matches(
            name.partition("/")[0], sorted({*known, "glyphs", "omniglot", "folder"}), 5, 0.5
        )
        prepared = sorted(
            {child.name for place in places if place.is_dir() for child in place.iterdir() if child.is_dir()}
        )
        raise ValueError(
            f"unknown data set {name!r}{'; near it: ' + ', '.join(near) if near else ''}. There are glyphs, omniglot, "
            f"folder, the {len(known)} of TFDS (https://www.tensorflow.org/datasets/catalog), and what is prepared in "
            f"{', '.join(map(str, places))}{': ' + ', '.join(prepared[:9]) if prepared else ''}"
        )
    if in_other_format:
        raise ValueError(
            f"the TFDS data set {name!r} is prepared in {', '.join(in_other_format)}, which cannot be read without "
            "TensorFlow; " + how_to_prepare(name)
        )
    check_reachable(builder, name)
    try:
        prepare(builder)
    except ImportError as error:
        raise ValueError(
            f"the TFDS data set {name!r} cannot be prepared here ({error}); {how_to_prepare(name)}"
        ) from error
    except Exception as error:  # a download that failed, files that are missing: TFDS has no common class for them
        raise ValueError(
            f"the TFDS data set {name!r} could not be prepared: {error}; {how_to_prepare(name)}"
        ) from error
    return builder


def check_reachable(builder: Any, name: str) -> None:
    """Asks once, for some seconds at most, whether what is to be downloaded can be; TFDS itself would try for minutes.

    Raises:
      ValueError: when it cannot.
    """
    urls = [url for url in getattr(builder, "url_infos", None) or {} if url.startswith("http")]
    if builder.is_prepared() or not urls:
        return
    import requests

    try:
        with requests.get(urls[0], stream=True, timeout=PATIENCE):
            pass
    except requests.exceptions.RequestException as error:
        where = urls[0].split("/")[2]
        raise ValueError(
            f"the TFDS data set {name!r} is not prepared yet, and cannot be downloaded: {where} does not answer "
            f"({type(error).__name__}); {how_to_prepare(name)}"
        ) from error


def image_and_label(builder: Any, name: str) -> tuple[str, str]:
    """The names of the image feature and of the class label."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    supervised = builder.info.supervised_keys
    image, label = supervised if supervised and len(supervised) == 2 else ("image", "label")
    if (
        isinstance(image, str)
        and isinstance(label, str)
        and isinstance(features.get(image), tfds.features.Image)
        and isinstance(features.get(label), tfds.features.ClassLabel)
        and features[image].np_dtype == np.uint8
    ):
        return image, label
    raise ValueError(
        f"the TFDS data set {name!r} has no pair of an 8-bit image and a class label; its features are "
        f"{', '.join(f'{key}: {type(feature).__name__}' for key, feature in features.items())}"
    )


def prepare(builder: Any) -> None:
    """Prepares the data set unless it is prepared already; whole or not at all."""
    import tensorflow_datasets as tfds

    if not builder.is_prepared():
        log.info("preparing the TFDS data set %s in %s", builder.name, builder.data_dir)
        with quiet():
            tfds.disable_progress_bar()
            builder.download_and_prepare()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what TFDS prints and warns of on its way."""
    chatty = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(chatty, levels):
            logger.setLevel(level)


def tfds_places(data_dir: Path | None, cache_dir: Path) -> list[Path]:
    """The folders in which prepared data sets are looked for, the first before the others."""
    from tensorflow_datasets.core import constants

    given = [] if data_dir is None else [data_dir, data_dir / "tfds"]
    return [*(place for place in (*given, Path(constants.DATA_DIR)) if place.is_dir()), cache_dir / "tfds"]


def _builder(name: str, place: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        with quiet():
            return tfds.builder(name, data_dir=place, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, FileNotFoundError):
        return None
    except ImportError as error:  # features that need TensorFlow to be named, such as those of recordings
        raise ValueError(
            f"the TFDS data set {name!r} has features that cannot be read without TensorFlow ({error}); if they are "
            f"recordings, take --data tfds-audio:{name}"
        ) from error


def how_to_prepare(name: str) -> str:
    """What a user can do about a data set that is not prepared as it is wanted."""
    return (
        "prepare it where TensorFlow is installed, by tfds.builder("
        f"{name!r}, data_dir=DIR, file_format='array_record').download_and_prepare(), and give --data.data-dir DIR"
    )
