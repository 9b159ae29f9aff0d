"""Recordings with classes out of any TFDS data set that has them, prepared as array_record, without TensorFlow.

TFDS's own audio feature cannot even be named without TensorFlow; here its files are read by what ``features.json``
beside them says.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from metarep_jax.data.array_cache import cached, digest, file_facts
from metarep_jax.data.audio.recordings import VERSION, AudioConfig, rows_of, tell
from metarep_jax.data.audio.wav import read_wav
from metarep_jax.data.images.tfds_images import how_to_prepare, tfds_places
from metarep_jax.data.source_arrays import Source, from_arrays

log = logging.getLogger(__name__)
DEPTHS = (16, 24, 32)  # bits of a sample


class Layout(NamedTuple):
    """Where a prepared data set keeps what is wanted of it."""

    audio: str  # the feature's name
    label: str
    rate: int  # samples a second
    channels: int
    as_files: bool  # whether each recording is kept as the bytes of a WAV file, not as samples
    names: tuple[str, ...]  # of the classes


def load_tfds_audio(name: str, data_dir: Path | None, config: AudioConfig, cache_dir: Path) -> Source:
    """The recordings and classes of all labelled splits together, read once and then from ``cache_dir``.

    Args:
      name: of the data set, with its configuration and version where they matter: NAME, NAME/CONFIG, NAME:VERSION.
      data_dir: where it is prepared, itself or in ``tfds``; TFDS's own folder is looked in too.
      config: how recordings become rows.
      cache_dir: of prepared arrays.

    Raises:
      ValueError: for a data set that is not prepared as array_record (says how to), one without recordings and labels,
        or recordings that cannot be read here.
    """
    folder = find_folder(name, data_dir, cache_dir)
    layout = layout_of(folder, name)
    files = sorted(folder.glob("*.array_record*"))
    key = digest([VERSION, name, config.rate, config.samples, *layout, *map(file_facts, files)])

    def read() -> dict[str, np.ndarray]:
        waves, label = [], []
        for place, example in enumerate(examples(files)):
            if (number := int(example[layout.label].int64_list.value[0])) >= 0:  # -1 marks rows without a label
                waves.append(wave_of(example[layout.audio], layout, f"example {place} of {name}"))
                label.append(number)
        rows, said = rows_of(in_one_scale(waves), config)
        names = {"names": np.array(layout.names), "group": np.array([""] * len(layout.names))}
        return {"images": rows, "label": np.array(label, np.int32), **names, "said": np.array(said, np.str_)}

    arrays = cached(cache_dir, "tfds-audio", key, read)
    tell(f"TFDS data set {name}", arrays.pop("said"))
    return from_arrays(arrays)


def find_folder(name: str, data_dir: Path | None, cache_dir: Path) -> Path:
    """The folder of the data set's newest version, or of the one that ``name`` asks for, in the first place that has it
    as array_record."""
    path, _, version = name.partition(":")
    places, in_other_format = tfds_places(data_dir, cache_dir), []
    for place in places:
        found = [file.parent for depth in ("*", "*/*") for file in (place / path).glob(f"{depth}/features.json")]
        for folder in sorted(found, key=by_version, reverse=True):
            if version not in ("", folder.name):
                continue
            form = read_json(folder / "dataset_info.json").get("fileFormat") or "tfrecord"
            if form == "array_record":
                log.info("TFDS data set %s: read from %s", name, folder)
                return folder
            in_other_format.append(f"{folder} ({form})")
    if in_other_format:
        where = f"prepared in {', '.join(in_other_format)}, which cannot be read without TensorFlow"
    else:
        where = f"not prepared in {', '.join(map(str, places))}"
    raise ValueError(f"the TFDS data set {name!r} is {where}; {how_to_prepare(name)}")


def by_version(folder: Path) -> tuple[list[int], Path]:
    """1.10.0 after 1.9.0."""
    return [int(number) if number.isdigit() else -1 for number in folder.name.split(".")], folder


def layout_of(folder: Path, name: str) -> Layout:
    """The supervised recording and class label among a prepared data set's features; else the first of each."""
    pair = read_json(folder / "dataset_info.json").get("supervisedKeys", {}).get("tuple", {}).get("items", [])
    supervised = [key.get("featureKey") for key in pair]
    features = read_json(folder / "features.json").get("featuresDict", {}).get("features", {})
    in_order = sorted(features, key=lambda key: key not in supervised)
    recordings = [key for key in in_order if "audio" in features[key]]
    labels = [key for key in in_order if "classLabel" in features[key]]
    if not recordings or not labels:
        listed = ", ".join(f"{key}: {value['pythonClassName'].split('.')[-1]}" for key, value in features.items())
        raise ValueError(
            f"the TFDS data set {name!r} has no pair of a recording and a class label; its features are {listed}"
        )
    recording, label = recordings[0], labels[0]
    audio = features[recording]["audio"]
    rate, as_files = int(audio.get("sampleRate", 0)), bool(audio.get("lazyDecode"))
    encoding = audio.get("encoding", "NONE").lower()
    form = audio.get("fileFormat", "unknown") if as_files else "samples"
    if not rate:
        raise ValueError(f"the TFDS data set {name!r} does not say at which rate its recordings are sampled")
    if form not in ("wav", "samples") or encoding != "none":
        kept = f"of the form {form}, compressed by {encoding}"
        raise ValueError(f"the TFDS data set {name!r} keeps its recordings {kept}; wanted: wav or samples, by none")
    sizes = [int(size) for size in audio.get("shape", {}).get("dimensions", [])]
    channels = sizes[1] if len(sizes) > 1 else 1
    return Layout(recording, label, rate, channels, as_files, class_names(folder, label, features))


def read_json(file: Path) -> dict[str, Any]:
    """A file that TFDS writes beside the records."""
    return json.loads(file.read_text(encoding="utf-8"))


def class_names(folder: Path, label: str, features: Any) -> tuple[str, ...]:
    """The classes' names, which TFDS keeps in a file of their own; their numbers where it does not."""
    file = folder / f"{label}.labels.txt"
    if file.is_file():
        return tuple(file.read_text(encoding="utf-8").splitlines())
    return tuple(map(str, range(int(features[label]["classLabel"]["numClasses"]))))


def examples(files: list[Path]) -> Iterator[Any]:
    """Every record's features by name, as TFDS's own form of ``tf.train.Example`` has them."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.proto import tf_example_pb2

    example: Any = tf_example_pb2  # its classes are made when it is imported
    with ArrayRecordDataSource([str(file) for file in files]) as source:
        for row in range(len(source)):
            yield example.Example.FromString(source[row]).features.feature


def wave_of(feature: Any, layout: Layout, what: str) -> tuple[int, np.ndarray]:
    """Samples a second and samples [n], or [n, channels]; integers are not scaled yet."""
    if layout.as_files:
        return read_wav(feature.bytes_list.value[0], what)
    samples = (
        np.array(feature.int64_list.value, np.int32)
        if feature.HasField("int64_list")
        else np.array(feature.float_list.value, np.float32)
    )
    if not samples.size or not np.isfinite(samples).all():
        raise ValueError(f"{what} holds {'NaN or infinite' if samples.size else 'no'} samples")
    return layout.rate, samples if layout.channels == 1 else samples.reshape(-1, layout.channels)


def in_one_scale(waves: list[tuple[int, np.ndarray]]) -> list[tuple[int, Float[np.ndarray, "..."]]]:
    """Integers as floats in [−1, 1): of the fewest bits, 16, 24 or 32, that hold all of them; floats as they are."""
    largest = max((max(int(wave.max()), -int(wave.min())) for _, wave in waves if wave.dtype.kind == "i"), default=0)
    bits = next((depth for depth in DEPTHS if largest <= 2 ** (depth - 1)), DEPTHS[-1])
    scale = np.float32(2.0 ** (1 - bits))
    return [(rate, wave.astype(np.float32) * scale if wave.dtype.kind == "i" else wave) for rate, wave in waves]
