"""The table of few-shot intents: what may be trained on, how folds and seeds are put together, and the whole of it."""

import dataclasses
import json
import logging
import sys

import numpy as np
import pytest

from experiments.tables import intents
from experiments.tables.published import COLUMNS, published
from metarep_jax.data import DataConfig
from metarep_jax.data.text import intent_folds
from metarep_jax.data.text.tokens import TextConfig
from metarep_jax.evaluate import Interval, interval_over_folds
from metarep_jax.report.labels import chance, column_label, is_accuracy
from metarep_jax.report.pieces import plain
from metarep_jax.report.results import read_result

TEXT = TextConfig(length=8, vocabulary=300)
CLASSES, EACH, WAY = 15, 12, 5
SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "ro", "si", "ta")


def word(dataset, c):
    """One that only a class of one data set says."""
    return f"{dataset[0]}{SYLLABLES[c % 8]}{SYLLABLES[c // 8]}"


@pytest.fixture
def data(tmp_path):
    """Both data sets in small, each with five folds of five classes to train, validate and test on."""
    folder = tmp_path / "data"
    made = {name: [(f"{word(name, c)} please {i}", f"c{c:02}") for c in range(CLASSES) for i in range(EACH)]
            for name in intent_folds.DATA}  # fmt: skip
    (folder / "text" / "banking77").mkdir(parents=True)
    for part in ("train", "test"):
        rows = [f"{text},{name}" for text, name in made["banking77"][part == "test" :: 2]]
        (folder / "text" / "banking77" / f"{part}.csv").write_text("\n".join(["text,category", *rows]))
    (folder / "text" / "clinc150").mkdir()
    parts = {part: made["clinc150"][i::3] for i, part in enumerate(("train", "val", "test"))}
    (folder / "text" / "clinc150" / "data_full.json").write_text(json.dumps(parts))
    for name in ("BANKING77", "OOS"):
        for fold in intents.FOLDS:
            place = folder / "text" / "folds" / name / f"0{fold}"
            place.mkdir(parents=True)
            order = np.roll(np.arange(CLASSES), fold)
            for part, classes in zip(("train", "valid", "test"), order.reshape(3, WAY)):
                (place / f"labels.{part}.txt").write_text("\n".join(f"c{c:02}" for c in classes))
    return folder


def fold(data):
    """The first fold, and its tokenizer."""
    where = DataConfig(data_dir=data, cache_dir=data.parent / "cache")
    found = intent_folds.fold_of(1, TEXT, where, data.parent / "tokenizers")
    assert found.text.tokenizer is not None
    return found, found.text.tokenizer


def test_a_folds_pretraining_text_is_the_training_sentences_of_both_data_sets_alone(data):
    found, tokenizer = fold(data)
    lines = intent_folds.training_lines(1, DataConfig(data_dir=data, cache_dir=data.parent / "cache"))
    training = set(np.roll(np.arange(CLASSES), 1)[:WAY].tolist())
    assert {line.split()[0] for line in lines} == {word(name, c) for name in intent_folds.DATA for c in training}
    np.testing.assert_array_equal(found.text.train.inputs, tokenizer.rows(lines, TEXT.length))
    assert found.text.val.label.shape == found.text.test.label.shape == (0,)
    for name, splits in found.splits.items():
        assert not training & {int(c[1:]) for part in ("val", "test") for c in splits.class_names[part]}, name


def test_what_test_sentences_say_does_not_reach_the_tokenizer(data):
    before = fold(data)[1].digest
    intent_folds.fold_of.cache_clear()
    file = data / "text" / "banking77" / "train.csv"
    lines = file.read_text().splitlines()
    tested = (data / "text" / "folds" / "BANKING77" / "01" / "labels.test.txt").read_text().split()
    changed = [f"zyzzyva zyzzyva {line}" if line.split(",")[-1] in tested else line for line in lines]
    assert changed != lines
    file.write_text("\n".join(changed))
    assert fold(data)[1].digest == before


def test_a_thinned_pool_has_the_first_rows_of_every_class(data):
    pool = fold(data)[0].splits["banking77"].val
    few = intent_folds.thinned(pool, 3)
    assert few.count.tolist() == [3] * WAY
    np.testing.assert_array_equal(few.inputs[few.members[2]], pool.inputs[pool.members[2, :3]])


def test_the_interval_over_folds_is_students_of_their_means_or_that_of_their_episodes_if_wider():
    means = np.array([60.0, 62.0, 64.0, 66.0, 68.0])
    found = interval_over_folds([Interval(mean, 0.5, 600) for mean in means])
    assert (found.mean, found.n) == (64.0, 3000)
    assert found.ci95 == pytest.approx(2.7764 * np.sqrt(10 / 5), rel=1e-4)
    same = interval_over_folds([Interval(64.0, 0.5, 600)] * 5)
    assert same.ci95 == pytest.approx(0.5 / np.sqrt(5))


def test_more_seeds_on_the_same_folds_do_not_narrow_the_interval_over_folds():
    one = Interval(64.0, 3.0, 3000)
    combine = intents.pieces_of(intents.IntentsConfig())[0].combine
    assert combine([one]) == one
    assert combine([one] * 4) == one
    apart = combine([Interval(60.0, 3.0, 3000), Interval(68.0, 3.0, 3000)])
    assert apart.ci95 == pytest.approx(12.7062 * 4, rel=1e-4)


def test_the_short_table_takes_at_most_fifty_minutes_and_pretraining_counts_once():
    rows = intents.pieces_of(intents.IntentsConfig())
    assert 20 < sum(row.minutes for row in rows) <= 50
    assert [row.steps > 0 for row in rows] == [False, True, True, True]


def test_a_rows_settings_are_plain_and_those_that_its_numbers_depend_on():
    rows = {row.row: row.settings for row in intents.pieces_of(intents.IntentsConfig())}
    assert all(json.loads(json.dumps(settings)) == settings for settings in rows.values())
    longer = intents.recipe("short")
    longer = dataclasses.replace(longer, meta=dataclasses.replace(longer.meta, validation_episodes=7))
    for name, method in intents.METHODS.items():
        again = plain(intents.settings_of_row(method, longer, intents.IntentsConfig()))
        assert (again == rows[name]) == (not method.prototypical), name


def test_columns_have_names_and_published_numbers_say_that_they_were_not_checked():
    assert column_label("banking77_5w1s") == "BANKING77 5-way 1-shot" and chance("clinc150_5w5s") == 20.0
    assert all(is_accuracy(column) for column in COLUMNS[intents.TABLE])
    found = published(intents.TABLE, "masked_lm_prototypical", "clinc150_5w5s")
    assert found is not None and found.mean == 98.74 and not found.checked


@pytest.mark.slow
def test_the_table_from_end_to_end_and_again_with_nothing_left_to_train(data, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(intents, "FOLDS", (1, 2))
    words = ["--budget", "trial", "--data-dir", data, "--cache-dir", tmp_path / "cache", "--devices", 2]
    words += ["--run-folder", tmp_path / "runs"]
    intents.main([str(w) for w in words])
    table = read_result(tmp_path / "runs" / "trial" / "table.json")
    assert list(table.cells) == list(intents.METHODS)
    assert all(table.cells[row][column]["n"] == 16 for row in table.cells for column in COLUMNS[intents.TABLE])
    assert table.cells["masked_lm_prototypical"]["banking77_5w1s_published"]["mean"] == 89.56
    for file in (tmp_path / "runs" / "trial" / "masked_lm_prototypical").glob("*/result.json"):
        file.unlink()
    for stage in ("pretrain", "metatrain"):  # everything is trained: only judged again
        monkeypatch.setattr(sys.modules[f"metarep_jax.stages.{stage}"], "fit", None)
    caplog.clear()
    intents.main([str(w) for w in words])
    assert read_result(tmp_path / "runs" / "trial" / "table.json").cells == table.cells
    assert "the model is in" in caplog.text
