"""Recordings of TFDS data sets that were prepared elsewhere, laid out as TensorFlow Datasets 4.9 lays them out."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from test_audio import RATE, tone, wav

from metarep_jax.data import DataConfig, load_splits
from metarep_jax.data.audio.recordings import AudioConfig, load_audio
from metarep_jax.types import PAD_SAMPLE

pytest.importorskip("tensorflow_datasets")
CONFIG = AudioConfig(rate=RATE, seconds=0.5)
LABEL = {"classLabel": {"numClasses": "4"}, "pythonClassName": "tfds.features.ClassLabel"}


def audio(**changed):
    """The feature of recordings of one channel, kept as 64-bit integers."""
    kept = {"dtype": "int64", "encoding": "NONE", "sampleRate": str(RATE), "shape": {"dimensions": ["-1"]}}
    return {"audio": kept | changed, "pythonClassName": "tfds.features.audio_feature.Audio"}


def prepare(folder, recordings, labels, feature=None, file_format="array_record", names=None):
    """A data set of two shards; ``recordings``: integers, floats, or the bytes of a file each."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    folder.mkdir(parents=True)
    features = {"audio": feature or audio(), "label": LABEL}
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": file_format}))
    if names:
        (folder / "label.labels.txt").write_text("\n".join(names))
    for shard in range(2):
        writer = ArrayRecordWriter(str(folder / f"made-train.array_record-0000{shard}-of-00002"), "group_size:1")
        for recording, label in list(zip(recordings, labels))[shard::2]:
            example = tf_example_pb2.Example()
            wanted = example.features.feature["audio"]
            if isinstance(recording, bytes):
                wanted.bytes_list.value.append(recording)
            elif recording.dtype.kind == "i":
                wanted.int64_list.value.extend(recording.reshape(-1).tolist())
            else:
                wanted.float_list.value.extend(recording.reshape(-1).tolist())
            example.features.feature["label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())
        writer.close()
    return folder


def load(tmp_path, name="made"):
    return load_audio(f"tfds-audio:{name}", tmp_path / "data", CONFIG, tmp_path / "cache")


def test_recordings_are_read_with_their_classes_and_those_without_a_label_left_out(tmp_path):
    waves = [np.round(32768 * tone(40 + 10 * i)).astype(np.int64) for i in range(6)]
    prepare(tmp_path / "data" / "made" / "1.0.0", waves, [0, 1, 2, 3, -1, 0], names=["ah", "oh", "ee", "oo"])
    for _ in range(2):  # from the files, and from the cache
        source = load(tmp_path)
        assert source.names == ("ah", "oh", "ee", "oo")
        assert sorted(source.label.tolist()) == [0, 0, 1, 2, 3]
        lengths = (source.images != PAD_SAMPLE).sum(1)
        assert len(set(lengths.tolist())) == 1
        for row, label in zip(source.images, source.label):
            closest = [np.abs(row[: len(wave)] - wave).max() for wave in waves]
            assert min(closest) <= 2 and [0, 1, 2, 3, -1, 0][int(np.argmin(closest))] == label
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("kept", "changed"),
    [
        (lambda wave: wav(wave), {"fileFormat": "wav", "lazyDecode": True}),
        (lambda wave: wave, {"dtype": "float32"}),
        (lambda wave: np.round(2**23 * wave).astype(np.int64), {}),
        (lambda wave: np.round(2**31 * wave).astype(np.int64), {}),
        (lambda wave: np.stack([wave, wave], axis=1), {"dtype": "float32", "shape": {"dimensions": ["-1", "2"]}}),
    ],
)
def test_every_way_of_keeping_samples_gives_the_same_rows(tmp_path, kept, changed):
    wave = 0.9 * tone(50) / np.abs(tone(50)).max()
    prepare(tmp_path / "data" / "made" / "1.0.0", [kept(wave)] * 4, [0, 1, 2, 3], audio(**changed))
    row = load(tmp_path).images[0]
    np.testing.assert_allclose(row[: len(wave)] / 32767, wave, atol=1e-4)


def test_the_newest_version_is_taken_unless_another_is_asked_for(tmp_path):
    for version, classes in (("1.9.0", [0, 1]), ("1.10.0", [2, 3])):
        prepare(tmp_path / "data" / "tfds" / "made" / "short" / version, [np.ones(9, np.int64)] * 2, classes)
    assert sorted(load(tmp_path).label.tolist()) == [2, 3]
    assert sorted(load(tmp_path, "made/short:1.9.0").label.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"file_format": "tfrecord"}, r"\(tfrecord\), which cannot be read without TensorFlow; prepare it where"),
        (
            {"feature": audio(fileFormat="flac", lazyDecode=True)},
            "keeps its recordings of the form flac, .* wanted: wav",
        ),
        ({"feature": audio(sampleRate="0")}, "does not say at which rate"),
        (
            {"feature": {"text": {}, "pythonClassName": "a.Text"}},
            "no pair of a recording and a class label; its features",
        ),
        ({"recordings": [np.array([0.1, np.nan], np.float32)]}, "example 0 of made holds NaN or infinite samples"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, changed, message):
    prepare(**{"folder": tmp_path / "data" / "made" / "1.0.0", "recordings": [np.ones(9)], "labels": [0], **changed})
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_the_supervised_recording_is_taken_where_there_are_several(tmp_path):
    folder = prepare(tmp_path / "data" / "made" / "1.0.0", [np.full(9, 500)] * 2, [0, 1])
    features = {"aside": audio(sampleRate="1"), "audio": audio(), "kind": LABEL, "label": LABEL}
    pair = [{"featureKey": "audio"}, {"featureKey": "label"}]
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    info = {"fileFormat": "array_record", "supervisedKeys": {"tuple": {"items": pair}}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert (load(tmp_path).images[:, :9] == 500).all()


def test_a_data_set_that_is_nowhere_prepared_says_how_to(tmp_path):
    with pytest.raises(ValueError, match=r"'made' is not prepared in .*download_and_prepare"):
        load(tmp_path)
    if importlib.util.find_spec("tensorflow"):
        return  # with which such features can be named
    with pytest.raises(ValueError, match=r"take --data tfds-audio:speech_commands"):
        load_splits(DataConfig(name="speech_commands", cache_dir=tmp_path))
