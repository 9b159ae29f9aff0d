"""Recordings: rates, channels and lengths brought to one form, and what is said of it."""

import io
import logging
import zipfile

import numpy as np
import pytest
from scipy.io import wavfile

from metarep_jax.data import DataConfig, load_splits
from metarep_jax.data.audio.recordings import AudioConfig, fsdd_source, load_audio_folder, load_clips, load_fsdd
from metarep_jax.data.audio.synthetic_speech import FORMANTS, load_synthetic_speech, speak
from metarep_jax.data.audio.wav import as_rows, at_rate, in_range, mixed, read_wav
from metarep_jax.types import PAD_SAMPLE

RATE = 800
CONFIG = AudioConfig(rate=RATE, seconds=0.5)


def tone(frequency, seconds=0.4, rate=RATE):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def wav(samples, rate=RATE):
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


@pytest.mark.parametrize(
    ("samples", "tolerance"),
    [
        (lambda x: x, 1e-7),
        (lambda x: x.astype(np.float64), 1e-7),
        (lambda x: (x * 32768).astype(np.int16), 1e-4),
        (lambda x: (x * 2**31).astype(np.int32), 1e-6),
        (lambda x: np.round(x * 128 + 128).astype(np.uint8), 5e-3),
    ],
)
def test_samples_of_every_format_are_read_in_the_same_scale(samples, tolerance):
    rate, wave = read_wav(wav(samples(tone(50))), "it")
    assert rate == RATE
    np.testing.assert_allclose(wave, tone(50), atol=tolerance)


def test_channels_are_averaged_and_it_is_said():
    said = []
    stereo = read_wav(wav(np.stack([tone(50), 0 * tone(50)], axis=1)), "it")
    found = mixed([(RATE, tone(50)), stereo], said.append)
    np.testing.assert_allclose(found[1][1], tone(50) / 2, atol=1e-6)
    np.testing.assert_array_equal(found[0][1], tone(50))
    assert said == ["of 2 recordings 1 in stereo are mixed down to one channel"]


def test_another_rate_is_resampled_and_said():
    said = []
    same, resampled = at_rate([(RATE, tone(50)), (2000, tone(50, rate=2000))], RATE, said.append)
    inner = slice(40, -40)  # the filter rings at both ends
    np.testing.assert_allclose(resampled[inner], same[inner], atol=5e-3)
    assert said == ["of 2 recordings 1 at 2000 Hz are resampled to 800 Hz"]


def test_what_was_done_to_recordings_is_said_when_they_come_from_the_cache_too(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "one.wav").write_bytes(wav(np.stack([tone(50)] * 2, axis=1)))
    for _ in range(2):
        load_clips(tmp_path / "sounds", CONFIG, tmp_path / "cache")
    assert caplog.text.count("of 1 recordings 1 in stereo are mixed down to one channel") == 2


def test_frequencies_beyond_the_new_rate_are_filtered_out():
    (wave,) = at_rate([(3200, tone(700, rate=3200))], RATE, print)
    assert np.abs(wave[40:-40]).max() < 0.01


def test_short_recordings_are_filled_up_and_of_long_ones_the_middle_is_kept():
    said = []
    rows = as_rows([np.full(3, -1.0, np.float32), np.linspace(0, 1, 9, dtype=np.float32)], 5, said.append)
    assert rows[0].tolist() == [-32767, -32767, -32767, PAD_SAMPLE, PAD_SAMPLE]
    np.testing.assert_allclose(rows[1] / 32767, np.linspace(0, 1, 9)[2:7], atol=1e-4)
    assert said == ["of 1 recordings longer than 5 samples the middle is kept"]


def test_folders_are_classes(tmp_path):
    for c, name in enumerate(("deep/bark", "meow")):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for i in range(c + 1):
            (tmp_path / "sounds" / name / f"{i}.WAV").write_bytes(wav(tone(40 + 20 * c)))
    source = load_audio_folder(tmp_path / "sounds", CONFIG, tmp_path / "cache")
    assert (source.names, source.label.tolist()) == (("deep/bark", "meow"), [0, 1, 1])
    assert source.images.shape == (3, 400) and source.images.dtype == np.int16
    (tmp_path / "sounds" / "stray.wav").write_bytes(wav(tone(30)))
    with pytest.raises(
        ValueError, match=r"1 recordings lie in .*sounds itself, the first is stray\.wav, and have no class"
    ):
        load_audio_folder(tmp_path / "sounds", CONFIG, tmp_path / "cache")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"RIFFnothing", "cannot be read as WAV"),
        (wav(np.array([0.1, np.nan], np.float32)), "holds NaN or infinite samples"),
        (wav(np.zeros(0, np.int16)), "holds no samples"),
    ],
)
def test_recordings_that_cannot_be_used_are_named(tmp_path, content, message):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.wav {message}"):
        load_clips(tmp_path, CONFIG, tmp_path / "cache")


def test_folders_without_recordings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no WAV files"):
        load_clips(tmp_path, CONFIG, tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"FSDD needs fsdd_recordings\.zip"):
        load_fsdd(tmp_path, CONFIG, tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match="one folder of WAV files a class"):
        load_audio_folder(None, CONFIG, tmp_path)


def test_spoken_digits_have_a_digit_a_speaker_and_a_take(tmp_path):
    with zipfile.ZipFile(tmp_path / "fsdd_recordings.zip", "w") as archive:
        for name in ("7_ann_0", "7_bob_12", "0_ann_5"):
            archive.writestr(f"recordings/{name}.wav", wav(tone(60)))
    digits = load_fsdd(tmp_path, CONFIG, tmp_path / "cache")
    assert digits.digit.tolist() == [0, 7, 7]
    assert [digits.speakers[i] for i in digits.speaker] == ["ann", "ann", "bob"]
    assert digits.take.tolist() == [5, 0, 12]
    assert fsdd_source(digits, "speaker").label.tolist() == [0, 0, 1]
    assert fsdd_source(digits, "digit").names == tuple("0123456789")


def test_synthetic_speech_says_that_it_is_synthetic(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = DataConfig(name="synthetic-speech", cache_dir=tmp_path, rate=4000, seconds=0.5)
    splits = load_splits(config)
    assert "the speech is synthetic" in caplog.text
    assert "synthetic" in splits.protocol.description
    assert all("synthetic" in name for names in splits.class_names.values() for name in names)
    assert [len(splits.class_names[part]) for part in ("train", "val", "test")] == [24, 8, 8]
    assert splits.train.inputs.shape == (480, 2000)
    again = load_synthetic_speech(4000, 2000, tmp_path / "elsewhere")
    np.testing.assert_array_equal(load_synthetic_speech(4000, 2000, tmp_path).images, again.images)


def test_a_sound_is_loudest_at_its_resonances():
    wave = speak(np.tile(FORMANTS[5], (3, 1)), 8000, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(wave)) ** 2
    frequency = np.fft.rfftfreq(len(wave), 1 / 8000)
    near = np.min(np.abs(frequency[:, None] / FORMANTS[5] - 1.0), axis=1) < 0.35
    assert power[near].sum() > 0.7 * power.sum()


@pytest.mark.parametrize("changed", [{"rate": 0}, {"seconds": 0.0}])
def test_settings_out_of_range_are_refused(changed):
    with pytest.raises(ValueError, match="must"):
        AudioConfig(**changed)


def test_the_free_spoken_digits_are_read(metarep_data, tmp_path):
    digits = load_fsdd(metarep_data, AudioConfig(), tmp_path)
    assert digits.rows.shape == (3000, 8000)
    assert np.bincount(digits.digit).tolist() == [300] * 10
    assert np.bincount(digits.speaker).tolist() == [500] * 6
    assert np.sum(digits.take < 5) == 300


def test_floats_beyond_one_are_scaled_and_not_clipped_to_square_waves():
    said = []
    whole, loud, plain = np.round(tone(50) * 32000), tone(50) * 3, tone(50)
    scaled = [wave for _, wave in in_range([(RATE, whole), (RATE, loud), (RATE, plain)], said.append)]
    np.testing.assert_allclose(scaled[0], tone(50) * 32000 / 32768, atol=1e-4)
    np.testing.assert_allclose(scaled[1], tone(50) * 2, atol=1e-2)
    np.testing.assert_array_equal(scaled[2], plain)
    assert said == [
        "of 3 recordings 1 hold whole numbers as floats and are divided by 32,768",
        "of 3 recordings 1 have samples beyond ±1 and are divided by their largest sample",
    ]
    silent = said.clear() or in_range([(RATE, plain), (RATE, -plain)], said.append)
    assert not said and silent[0][1] is plain


def test_linked_class_folders_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.wav").write_bytes(wav(tone(50)))
    (tmp_path / "sounds" / "meow").mkdir(parents=True)
    (tmp_path / "sounds" / "meow" / "1.wav").write_bytes(wav(tone(60)))
    (tmp_path / "sounds" / "bark").symlink_to(tmp_path / "elsewhere")
    assert load_audio_folder(tmp_path / "sounds", CONFIG, tmp_path / "cache").names == ("bark", "meow")
