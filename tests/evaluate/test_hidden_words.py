"""Which words of a text may be hidden, and how a guess is shown."""

import numpy as np
import pytest

from metarep_jax.data.text.tokenizer import train_tokenizer
from metarep_jax.evaluate.hidden_words import choose_words, hidden_word, whole_words

LINES = ["my card has not arrived, why?", "it cost 5 pounds, cards and unheardof things"]


@pytest.fixture(scope="module")
def tokenizer():
    """One that knows a few words whole, and spells all others."""
    return train_tokenizer(["my card has not arrived, why?"] * 9, vocabulary=300)


def test_words_that_may_be_hidden_are_whole_ones_of_letters(tokenizer):
    rows = tokenizer.rows(LINES, 40)
    found = [[tokenizer.words([row[place]]).strip() for place in whole_words(tokenizer, row)] for row in rows]
    assert found[0] == ["my", "card", "has", "not", "arrived", "why"]
    assert found[1] == []  # "cards" is not "card", and "it" and all others are spelt


def test_a_row_gives_at_most_one_hidden_word_and_one_without_words_none(tokenizer):
    rows = tokenizer.rows([LINES[1], LINES[0]], 40)
    chosen, place = choose_words(tokenizer, rows, seed=0)
    np.testing.assert_array_equal(chosen, rows[1:])
    assert place[0] in whole_words(tokenizer, rows[1])
    assert choose_words(tokenizer, rows[:1], seed=0)[0].shape == (0, 40)


def test_a_hidden_word_and_what_stands_around_it_are_the_text(tokenizer):
    row = tokenizer.rows(LINES[:1], 40)[0]
    place = whole_words(tokenizer, row)[1]
    word = hidden_word(tokenizer, row, place, row[place : place + 1], np.array([0.25]), row[place], 0.25)
    assert f"{word.before} {word.truth} {word.after}" == LINES[0]
    assert word.guesses == [("card", 0.25)]
