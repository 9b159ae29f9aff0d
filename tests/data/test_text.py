"""Texts: from files to rows of token ids, and what is said when the files are wrong."""

import json
import logging
import zipfile

import numpy as np
import pytest

from metarep_jax.data import DataConfig, load_splits, text_feed
from metarep_jax.data.text.corpora import held_out, plain_wikitext, read_brown, read_plain, without_tags
from metarep_jax.data.text.docstrings import docstrings_of, read_docstrings
from metarep_jax.data.text.named_texts import joined, read_banking77, read_clinc150
from metarep_jax.data.text.tokenizer import keep_tokenizer, load_tokenizer, train_tokenizer
from metarep_jax.data.text.tokens import TextConfig, packed_rows
from metarep_jax.types import END_TOKEN, FIRST_TOKEN, PAD_TOKEN, SPECIAL_TOKENS, UNKNOWN_TOKEN

LINES = [f"the {colour} {animal} sees the {other}" for colour in ("red", "blue", "green", "grey", "brown")
         for animal in ("cat", "dog", "fox", "hen") for other in ("owl", "bee", "ant")]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES, vocabulary=400)


@pytest.fixture
def corpus(tmp_path):
    """Thirty documents of a few lines each."""
    for i in range(30):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{i:02}.txt").write_text("\n".join(LINES[i : i + 8]) + "\n")
    return tmp_path / "texts"


def config(place, **changed):
    text = {"length": 12, "vocabulary": 400} | changed
    return DataConfig(name="text", data_dir=place, cache_dir=place.parent / "cache", **text)


def test_training_a_tokenizer_again_gives_the_same_one(tokenizer):
    assert train_tokenizer(LINES, vocabulary=400).digest == tokenizer.digest
    assert train_tokenizer([*LINES[:-1], "wholly other words"], vocabulary=400).digest != tokenizer.digest


def test_a_row_is_first_tokens_end_and_padding(tokenizer):
    rows = tokenizer.rows(["The red cat!", LINES[0]], 7)
    assert tokenizer.words(rows[0]).strip() == "the red cat!"
    assert rows[0].tolist() == [FIRST_TOKEN, *tokenizer.ids(["the red cat!"])[0], END_TOKEN, PAD_TOKEN]
    assert rows[1, -1] == END_TOKEN and (rows[1] != PAD_TOKEN).all()  # six words are cut to five
    assert rows.max() < tokenizer.size <= 400


@pytest.mark.parametrize("text", ["naïve façade", "日本語 and 🙂", "tabs\tand  spaces"])
def test_byte_pairs_know_every_text(text):
    cased = train_tokenizer(LINES, vocabulary=300, lowercase=False)
    ids = cased.ids([text])[0]
    assert UNKNOWN_TOKEN not in ids
    assert cased.words(ids).strip() == text


def test_special_tokens_that_a_text_spells_are_text_but_for_the_unknown_one(tokenizer):
    ids = tokenizer.ids(["a [MASK] and [PAD] [UNK] cat"])[0]
    assert ids.count(UNKNOWN_TOKEN) == 1
    assert not set(ids) & set(range(SPECIAL_TOKENS)) - {UNKNOWN_TOKEN}


def test_running_text_is_cut_into_rows_and_loses_no_token(tokenizer):
    lines = [LINES[0], "", LINES[1], LINES[2]]
    rows = packed_rows(tokenizer, lines, 5)
    assert (rows[:, 0] == FIRST_TOKEN).all()
    stream = rows[:, 1:].reshape(-1)
    wanted = [token for ids in tokenizer.ids([LINES[0], LINES[1], LINES[2]]) for token in (*ids, END_TOKEN)]
    assert stream[: len(wanted)].tolist() == wanted
    assert (stream[len(wanted) :] == PAD_TOKEN).all() and len(stream) - len(wanted) < 4


def test_a_tokenizer_stays_with_its_run_and_another_is_refused(tokenizer, tmp_path):
    keep_tokenizer(tmp_path, tokenizer)
    keep_tokenizer(tmp_path, tokenizer)
    assert load_tokenizer(tmp_path, tokenizer.digest).ids(["the cat"]) == tokenizer.ids(["the cat"])
    other = train_tokenizer(["quite another text"], vocabulary=300)
    with pytest.raises(ValueError, match=f"is of another run: its digest is {tokenizer.digest}, wanted {other.digest}"):
        keep_tokenizer(tmp_path, other)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be used"):
        load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no tokenizer at"):
        load_tokenizer(tmp_path / "nowhere")


def test_a_folder_of_texts_is_split_by_documents_and_the_tokenizer_sees_the_training_part_alone(corpus):
    (corpus / "09.txt").write_text("zebra " * 40 + "\n")
    splits = load_splits(config(corpus))
    assert splits.class_names == {"train": ("train",), "val": (), "test": ("test",)}
    assert splits.protocol.name == "corpus"
    assert splits.train.inputs.shape[1] == 12 and splits.train.inputs.dtype == np.int32
    assert splits.tokenizer is not None
    assert len(splits.tokenizer.ids(["cat"])[0]) == 1 and len(splits.tokenizer.ids(["zebra"])[0]) > 2


def test_files_named_by_their_part_are_of_it(tmp_path):
    for name, text in {"train-a": "one", "b": "two", "dev": "three", "test": "four"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    assert read_plain(tmp_path) == {"train": ["two", "one"], "val": ["three"], "test": ["four"]}


def test_a_single_document_gives_its_last_tenth_for_testing():
    lines = [str(i) for i in range(50)]
    assert held_out([lines], "it") == {"train": lines[:45], "test": lines[45:]}
    with pytest.raises(ValueError, match="it holds too little text: its part for test would be empty"):
        held_out([["one", "two"]], "it")


def test_joined_corpora_are_tested_on_the_last_alone():
    texts = joined([{"train": ["a"], "test": ["b"]}, {"train": ["c"], "val": ["d"], "test": ["e"]}])
    assert (texts.lines, texts.names) == (["a", "b", "c", "d", "e"], ("train", "val", "test"))
    assert texts.label.tolist() == [0, 0, 0, 1, 2]


def test_a_text_that_is_not_utf8_is_named_with_the_place(corpus):
    (corpus / "03.txt").write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(ValueError, match=r"03\.txt is not UTF-8: byte 0xef at offset 7 \(line 2\)"):
        load_splits(config(corpus))


def test_a_text_with_fewer_tokens_than_a_batch_is_refused(corpus):
    pool = load_splits(config(corpus)).train
    rows = len(pool.inputs)
    assert text_feed(pool, rows).size == rows
    with pytest.raises(ValueError, match=rf"tokens in {rows} rows of 12, fewer than a batch of {rows + 1} rows"):
        text_feed(pool, rows + 1)


def test_a_folder_without_texts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.txt file"):
        read_plain(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; wanted is a \.txt file or a folder"):
        read_plain(tmp_path / "nowhere")


def test_marks_and_tags_are_taken_out_of_the_words():
    assert plain_wikitext(" a 1 @,@ 000 @-@ foot <unk> ") == " a 1,000-foot [UNK] "
    assert without_tags("\tThe/at and/or/cc ''/''") == "The and/or ''"


def test_brown_is_parted_by_documents(tmp_path):
    with zipfile.ZipFile(tmp_path / "brown.zip", "w") as archive:
        for i in range(20):
            archive.writestr(f"brown/ca{i:02}", f"number/nn {i}/cd\n")
        archive.writestr("brown/README", "not text/nn")
    parts = read_brown(tmp_path)
    assert parts["test"] == ["number 9", "number 19"]
    assert len(parts["train"]) == 18
    (tmp_path / "brown.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"brown\.zip is damaged"):
        read_brown(tmp_path)


def test_intents_are_split_by_the_folds_files(tmp_path):
    names = ("lost", "found", "other")
    (tmp_path / "banking77").mkdir()
    for part in ("train", "test"):
        rows = [f'"{part}, {name} {i}",{name}' for name in names for i in range(3)]
        (tmp_path / "banking77" / f"{part}.csv").write_text("\n".join(["text,category", *rows]))
    fold = tmp_path / "folds" / "BANKING77" / "02"
    fold.mkdir(parents=True)
    for part, name in zip(("train", "valid", "test"), names):
        (fold / f"labels.{part}.txt").write_text(name + "\n")
    made = DataConfig(name="banking77", protocol="banking77-fold2", data_dir=tmp_path, cache_dir=tmp_path / "cache",
                      length=12, vocabulary=300)  # fmt: skip
    splits = load_splits(made)
    assert splits.class_names == {part: (name,) for part, name in zip(("train", "val", "test"), names)}
    assert splits.test.count.tolist() == [6]
    assert (splits.protocol.ways, splits.protocol.query, splits.protocol.episodes) == ((5,), 5, 600)
    (fold / "labels.test.txt").write_text("lost\nstolen\n")
    with pytest.raises(ValueError, match=r"labels\.test\.txt, got 1 others, the first \['stolen'\]"):
        load_splits(made)
    with pytest.raises(FileNotFoundError, match=r"fold 1 of BANKING77 .*labels\.train\.txt"):
        load_splits(DataConfig(name="banking77", data_dir=tmp_path, cache_dir=tmp_path / "cache"))


def test_damaged_intents_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"BANKING77 needs train\.csv and test\.csv"):
        read_banking77(tmp_path)
    for file in ("train.csv", "test.csv"):
        (tmp_path / file).write_text("sentence,label\nhello,greeting\n")
    with pytest.raises(ValueError, match=r"train\.csv has the columns \['sentence', 'label'\]"):
        read_banking77(tmp_path)
    (tmp_path / "data_full.json").write_text(json.dumps({"train": [["hello", "greeting"]]}))
    with pytest.raises(ValueError, match=r"data_full\.json is damaged, or not CLINC150's"):
        read_clinc150(tmp_path)


def test_docstrings_are_read_without_importing(tmp_path):
    says = [f'def f{i}():\n    """Number {i} does a little\n\n    more than that."""\n' for i in range(20)]
    (tmp_path / "alpha.py").write_text("raise SystemExit\n" + "".join(says))
    (tmp_path / "beta").mkdir()
    (tmp_path / "beta" / "gamma.py").write_text("".join(says[:3]) + 'class C:\n    """Short."""\n')
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "it.py").write_text("".join(says).replace("does", "tests"))
    (tmp_path / "broken.py").write_text("def (:\n")
    assert next(iter(docstrings_of(tmp_path / "alpha.py"))) == "Number 0 does a little more than that."
    assert read_docstrings(tmp_path) == {}  # the three that both say are nobody's, which leaves 17, too few
    (tmp_path / "beta" / "gamma.py").unlink()
    assert {name: len(lines) for name, lines in read_docstrings(tmp_path).items()} == {"alpha": 20}
    with pytest.raises(FileNotFoundError, match="source of Python's standard library"):
        read_docstrings(tmp_path / "nowhere")


def test_names_of_texts_are_known():
    for name in ("docstrings", "brown+wikitext2", "clinc150", "tfds-text:ag_news"):
        assert "vocabulary" in DataConfig.settings_of(name)
    assert "vocabulary" not in DataConfig.settings_of("glyphs")
    with pytest.raises(ValueError, match=r"glyphs cannot be joined by \+; there are wikitext2, brown, text"):
        DataConfig("brown+glyphs").read()


@pytest.mark.parametrize("changed", [{"length": 2}, {"vocabulary": 299}])
def test_settings_out_of_range_are_refused(changed):
    with pytest.raises(ValueError, match="must be at least"):
        TextConfig(**changed)


@pytest.mark.slow
def test_real_texts_are_read(metarep_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    text = {"length": 32, "vocabulary": 2000}
    splits = load_splits(DataConfig(name="brown+wikitext2", data_dir=metarep_data, cache_dir=tmp_path, **text))
    assert "validation part is used for training" in caplog.text
    assert len(splits.train.inputs) > 3 * len(splits.test.inputs) > 10_000
    assert float(np.mean(np.asarray(splits.test.inputs) == UNKNOWN_TOKEN)) < 0.06
    sizes = {"banking77": (25, 25, 27, 13_083), "clinc150": (50, 50, 50, 22_500)}
    for name, (*classes, rows) in sizes.items():
        found = load_splits(DataConfig(name=name, data_dir=metarep_data, cache_dir=tmp_path, **text))
        assert [len(found.class_names[part]) for part in ("train", "val", "test")] == classes
        assert sum(len(pool.inputs) for pool in found[:3]) == rows


def test_whole_words_of_files_and_folders_say_the_part_and_it_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in ("testament.txt", "devil.TXT", "value_investing.txt", "my-test.txt", "Valid/a.txt", "valid/train.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".hidden.txt").write_text("hidden")
    parts = read_plain(tmp_path)
    assert set(parts["train"]) == {"testament.txt", "devil.TXT", "value_investing.txt", "valid/train.txt"}
    assert (parts["val"], parts["test"]) == (["Valid/a.txt"], ["my-test.txt"])
    assert "part train: devil.TXT, testament.txt, value_investing.txt, valid/train.txt" in caplog.text
    assert "part test: my-test.txt" in caplog.text


def test_texts_that_none_is_for_training_of_are_refused(tmp_path):
    (tmp_path / "test.txt").write_text("four")
    with pytest.raises(ValueError, match="holds no text for training: all files are named as of test"):
        read_plain(tmp_path)
    (tmp_path / "book.pdf").write_text("%PDF")
    with pytest.raises(ValueError, match=r"book\.pdf is no plain text, .*save documents as plain text"):
        read_plain(tmp_path / "book.pdf")


@pytest.mark.parametrize("code", ["utf-16", "utf-16le", "utf-16be"])
def test_utf16_is_called_so_with_the_command_that_converts_it(tmp_path, code):
    (tmp_path / "a.txt").write_bytes("a text of some words\n".encode(code))
    with pytest.raises(
        ValueError, match=rf"a\.txt is {code.upper()}, not UTF-8; convert it by iconv -f {code} -t utf-8"
    ):
        read_plain(tmp_path)
