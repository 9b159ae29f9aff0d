"""The table of spoken digits: which recordings a probe sees, and what it is asked."""

import io
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import wavfile

from experiments.tables import spoken_digits
from experiments.tables.spoken_digits import SpokenDigitsConfig, pieces_of
from metarep_jax.data import DataConfig
from metarep_jax.data.audio.recordings import Digits
from metarep_jax.data.audio.spoken_digits import is_test, splits_of_digits
from metarep_jax.evaluate.speech_probes import probe, probe_digits
from metarep_jax.report.results import read_result

SPEAKERS, DIGITS, TAKES = ("ann", "bob", "eve"), 5, 8
COUNT = len(SPEAKERS) * DIGITS * TAKES


@pytest.fixture(scope="module")
def digits():
    """Five digits by every speaker, eight takes; a row's first sample numbers it."""
    speaker, digit, take = (part.reshape(-1) for part in np.mgrid[: len(SPEAKERS), :DIGITS, :TAKES])
    rows = np.zeros((len(take), 4), np.int16)
    rows[:, 0] = np.arange(len(take))
    return Digits(rows, digit, speaker, take, SPEAKERS)


def test_the_first_five_takes_are_kept_from_training(digits):
    splits = splits_of_digits(digits, DataConfig(name="fsdd"))
    train, test = (np.asarray(pool.inputs[:, 0]) for pool in (splits.train, splits.test))
    assert sorted([*train, *test]) == list(range(len(digits.take)))
    assert set(digits.take[test]) == set(range(5)) and set(digits.take[train]) == set(range(5, TAKES))
    np.testing.assert_array_equal(splits.test.label, digits.digit[test])
    assert splits.val.count.shape[0] == splits.val.label.shape[0] == 0


def test_what_a_speaker_says_in_their_own_way_is_known_but_not_where_they_were_never_heard(digits):
    """Features that say who says what: those of a new speaker are all new."""
    noise = np.random.default_rng(0).standard_normal((COUNT, len(SPEAKERS) * DIGITS))
    own = np.eye(len(SPEAKERS) * DIGITS)[digits.speaker * DIGITS + digits.digit] + 0.01 * noise
    found = probe_digits(jnp.asarray(own, jnp.float32), digits)
    assert found["speaker"].mean == found["digit"].mean == 100
    assert found["digit_unseen_speaker"].mean < 35
    assert {each.n for each in found.values()} == {len(SPEAKERS) * DIGITS * 5}
    said = jnp.asarray(np.eye(DIGITS, len(SPEAKERS) * DIGITS)[digits.digit], jnp.float32)
    assert probe_digits(said, digits)["digit_unseen_speaker"].mean == 100


def test_a_test_recording_has_no_part_in_what_is_said_of_another(digits):
    features = np.random.default_rng(1).standard_normal((COUNT, 6)) + np.eye(DIGITS, 6)[digits.digit]
    test = is_test(digits)
    changed = features.copy()
    changed[np.flatnonzero(test)[3:]] = 7.0
    both = (jnp.asarray(rows, jnp.float32) for rows in (features, changed))
    one, other = (probe(rows, digits.digit, ~test, test, digits.take % 5) for rows in both)
    np.testing.assert_array_equal(one[:3], other[:3])


def test_rows_differ_in_their_negatives_alone():
    rows = {row.row: row.settings for row in pieces_of(SpokenDigitsConfig())}
    assert rows["log_mel"]["steps"] == rows["untrained"]["steps"] == 0
    assert rows["untrained"]["encoder"] == rows["cpc"]["encoder"]
    for name, negatives in {"cpc": "all", "cpc_within": "within", "cpc_across": "across"}.items():
        assert rows[name]["pretrain"]["objective"].pop("negatives") == negatives
    assert rows["cpc"] == rows["cpc_within"] == rows["cpc_across"]


def test_other_data_are_refused():
    with pytest.raises(ValueError, match=r"this table is of fsdd, got data\.name audio"):
        SpokenDigitsConfig(data=DataConfig(name="audio"))


@pytest.mark.slow
def test_the_table_from_end_to_end(tmp_path):
    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "fsdd_recordings.zip", "w") as archive:
        for name in (f"{d}_{s}_{t}" for d in range(10) for s in SPEAKERS for t in range(TAKES)):
            file = io.BytesIO()
            wavfile.write(file, 8000, random.normal(0, 3000, 4000).astype(np.int16))
            archive.writestr(f"recordings/{name}.wav", file.getvalue())
    words = ["--data.data-dir", tmp_path, "--data.cache-dir", tmp_path / "cache", "--run-folder", tmp_path / "runs"]
    words += ["--budget", "trial", "--seeds", 2, "--rows", "log_mel", "untrained", "cpc", "--devices", 1]
    spoken_digits.main([str(word) for word in words])
    table = read_result(tmp_path / "runs" / "trial" / "table.json")
    assert list(table.cells) == ["log_mel", "untrained", "cpc"]
    assert {cell["n"] for row in table.cells.values() for cell in row.values()} == {150}
    assert table.config["cells"]["cpc"]["digit"]["note"] == "negatives of all recordings; 32 numbers a recording"
