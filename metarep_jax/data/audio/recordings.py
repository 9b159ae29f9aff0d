"""Recordings: WAV files as rows of 16-bit samples at one rate and of one length."""

import dataclasses
import logging
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int16

from metarep_jax.data.array_cache import cached, digest, file_facts
from metarep_jax.data.audio.wav import as_rows, at_rate, in_range, mixed, read_wav
from metarep_jax.data.class_folders import read_class_folders
from metarep_jax.data.source_arrays import Source
from metarep_jax.data.walk import walk_files
from metarep_jax.typed_settings import Settings

log = logging.getLogger(__name__)
WANTED = (
    "a folder with one folder of WAV files a class (DIR/bark/1.wav, DIR/meow/7.wav), these in folders train, val and "
    "test (DIR/train/bark/1.wav), or WAV files without classes (DIR/1.wav)"
)
TFDS = "tfds-audio:"  # and the name of the data set
VERSION = 3  # of how recordings are read: another number makes caches anew


@dataclasses.dataclass(frozen=True)
class AudioConfig(Settings):
    """How recordings become rows of samples."""

    rate: int = 8000
    """Samples a second; recordings at another rate are resampled, which is said."""
    seconds: float = 1.0
    """Length of a row: of longer recordings the middle is kept, shorter ones are filled up."""

    def __post_init__(self):
        super().__post_init__()
        if self.rate < 1:
            raise ValueError(f"--data.rate must be at least 1, got {self.rate}")
        if self.samples < 1:
            raise ValueError(f"--data.seconds must give at least one sample, got {self.seconds}")

    @property
    def samples(self) -> int:
        """The length of a row."""
        return round(self.rate * self.seconds)


class Clips(NamedTuple):
    """Recordings as rows, filled up with −32768 after their end, and the paths that name them."""

    rows: Int16[np.ndarray, "n samples"]
    names: tuple[str, ...]  # paths below the folder or within the zip file


class Digits(NamedTuple):
    """The Free Spoken Digit Dataset: rows with who says which digit, and the number of the recording, 0 to 49."""

    rows: Int16[np.ndarray, "n samples"]
    digit: Int[np.ndarray, " n"]
    speaker: Int[np.ndarray, " n"]
    take: Int[np.ndarray, " n"]  # its authors test on takes 0 to 4
    speakers: tuple[str, ...]


def load_audio(name: str, data_dir: Path | None, config: AudioConfig, cache_dir: Path) -> Source:
    """The recordings of that name, as rows of 16-bit samples [n, samples]."""
    if name == "audio":
        return load_audio_folder(data_dir, config, cache_dir)
    if name.startswith(TFDS):
        from metarep_jax.data.audio.tfds_audio import load_tfds_audio

        return load_tfds_audio(name.removeprefix(TFDS), data_dir, config, cache_dir)
    from metarep_jax.data.audio.synthetic_speech import load_synthetic_speech

    return load_synthetic_speech(config.rate, config.samples, cache_dir)


def load_audio_folder(root: Path | None, config: AudioConfig, cache_dir: Path) -> Source:
    """WAV files in folders of any depth, as images are: the folder that directly holds files is their class, within
    folders train, val and test if there are such; files in no folder have no class.

    Raises:
      FileNotFoundError, ValueError: as ``load_clips``, and for files with and without a class side by side.
    """
    clips = load_clips(root, config, cache_dir)
    read = read_class_folders(clips.names, root, "recordings", WANTED)
    return Source(clips.rows, read.label, read.names, ("",) * len(read.names), read.part)


def load_fsdd(data_dir: Path | None, config: AudioConfig, cache_dir: Path) -> Digits:
    """The Free Spoken Digit Dataset: 10 digits, 6 speakers, 50 takes each, at 8 kHz.

    Source: https://github.com/Jakobovski/free-spoken-digit-dataset.

    Raises:
      FileNotFoundError: says which files are wanted, and where.
      ValueError: for damaged files, or names other than DIGIT_SPEAKER_TAKE.wav.
    """
    places = [Path(place, name) for place in ("audio", "fsdd", ".") for name in ("fsdd_recordings.zip", "recordings")]
    found = [data_dir / place for place in places if data_dir is not None and (data_dir / place).exists()]
    if not found:
        without = "" if data_dir is None else f"{data_dir} holds neither; "
        raise FileNotFoundError(
            "FSDD needs fsdd_recordings.zip, or the folder recordings of its repository, in DATA_DIR/audio or "
            f"DATA_DIR; {without}give --data.data-dir DATA_DIR or set METAREP_DATA"
        )
    clips = load_clips(found[0], config, cache_dir)
    try:
        parts = [Path(name).stem.split("_") for name in clips.names]
        digit, take = (np.array([int(part[i]) for part in parts], np.int32) for i in (0, 2))
        speakers, speaker = np.unique([part[1] for part in parts], return_inverse=True)
    except (ValueError, IndexError) as error:
        raise ValueError(f"recordings in {found[0]} are not named DIGIT_SPEAKER_TAKE.wav ({error})") from error
    return Digits(clips.rows, digit, speaker.reshape(-1).astype(np.int32), take, tuple(speakers.tolist()))


def fsdd_source(digits: Digits, label: Literal["digit", "speaker"]) -> Source:
    """The recordings with digits or speakers for classes."""
    names = tuple(map(str, range(10))) if label == "digit" else digits.speakers
    return Source(digits.rows, digits.digit if label == "digit" else digits.speaker, names, ("",) * len(names))


def load_clips(root: Path | None, config: AudioConfig, cache_dir: Path) -> Clips:
    """All WAV files below a folder or in a zip file, read once and then from ``cache_dir``.

    Raises:
      FileNotFoundError: when there is no such folder.
      ValueError: when it holds no WAV file, or one that cannot be read (names it).
    """
    zipped = root is not None and root.is_file() and zipfile.is_zipfile(root)
    files = [] if zipped else walk_files(root, (".wav",), "WAV files", WANTED).files
    assert root is not None
    facts = [file_facts(root)] if zipped else [(file.name, file.size, file.changed) for file in files]
    key = digest([VERSION, config.rate, config.samples, *facts])

    def read() -> dict[str, np.ndarray]:
        content = _zipped(root) if zipped else {file.name: file.path for file in files}
        if not content:
            raise ValueError(f"{root} holds no WAV files")
        found = [read_wav(bytes_or_path, f"{root}/{name}") for name, bytes_or_path in content.items()]
        rows, said = rows_of(found, config)
        return {"rows": rows, "names": np.array([*content]), "said": np.array(said, np.str_)}

    arrays = cached(cache_dir, "audio", key, read)
    tell(str(root), arrays["said"])
    return Clips(arrays["rows"], tuple(arrays["names"].tolist()))


def rows_of(
    found: Sequence[tuple[int, Float[np.ndarray, "..."]]], config: AudioConfig
) -> tuple[Int16[np.ndarray, "n samples"], list[str]]:
    """Recordings, each with its rate, as rows, and sentences for ``tell`` of what was done to them."""
    said: list[str] = []
    waves = at_rate(mixed(in_range(found, said.append), said.append), config.rate, said.append)
    return as_rows(waves, config.samples, said.append), said


def tell(what: str, said: Iterable[str]) -> None:
    """Tells the user what was done to recordings; the sentences are kept with the rows."""
    for sentence in said:
        log.info("%s: %s", what, sentence)


def _zipped(file: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in sorted(archive.namelist()) if name.lower().endswith(".wav")]
            return {name: archive.read(name) for name in names if "__MACOSX" not in name}
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}); get it again") from error
