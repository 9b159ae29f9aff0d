"""Words hidden from held-out text, and what an objective that predicts hidden tokens takes them for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from metarep_jax.data.text.tokenizer import Tokenizer
from metarep_jax.types import SPECIAL_TOKENS, Objective

WORDS, AROUND = 7, 12  # words that are hidden, and the tokens kept on either side of each


class HiddenWord(NamedTuple):
    """One word hidden from a text: what stands around it, and the guesses with their probabilities, best first."""

    before: str
    truth: str
    after: str
    guesses: Sequence[tuple[str, float]]
    of_truth: float  # the probability of the word itself


def guess_hidden_words(
    objective: Objective,
    params: Any,
    state: Any,
    rows: Int[np.ndarray, "n length"],
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
) -> list[HiddenWord]:
    """One hidden word of each of some rows, and the guesses of ``objective.judge.guess``.

    Args:
      objective: made without ``axis_name``; one whose judge does not guess gives no words.
      params, state: trained.
      rows: token ids that were not trained on.
      tokenizer: which words they stand for.
      seed: of the choice of rows and words.
    """
    if objective.judge is None or objective.judge.guess is None:
        return []
    chosen, place = choose_words(tokenizer, np.asarray(rows), seed)
    if not len(chosen):
        return []
    guesses = jax.jit(objective.judge.guess)(params, state, jnp.asarray(chosen), jnp.asarray(place))
    return [
        hidden_word(tokenizer, *each) for each in zip(chosen, place.tolist(), *map(np.asarray, guesses), strict=True)
    ]


def choose_words(
    tokenizer: Tokenizer, rows: Int[np.ndarray, "n length"], seed: int
) -> tuple[Int[np.ndarray, "chosen length"], Int[np.ndarray, " chosen"]]:
    """Some rows at random, and the place of one word in each; fewer where there are not enough rows with words."""
    random = np.random.default_rng(seed)
    chosen, place = [], []
    for row in rows[random.permutation(len(rows))]:
        if len(chosen) == WORDS:
            break
        if places := whole_words(tokenizer, row):
            chosen.append(row)
            place.append(random.choice(places))
    return np.array(chosen, np.int32).reshape(-1, rows.shape[1]), np.array(place, np.int32)


def whole_words(tokenizer: Tokenizer, row: Int[np.ndarray, " length"]) -> list[int]:
    """The places of those tokens of a row that are words by themselves: letters between a space and what is none."""
    texts = [tokenizer.words([token]) for token in row]  # of special tokens: ""
    return [
        place
        for place, (text, following) in enumerate(zip(texts, [*texts[1:], ""], strict=True))
        if text.startswith(" ") and text[1:].isalpha() and not following[:1].isalpha()
    ]


def hidden_word(
    tokenizer: Tokenizer, row: Any, place: int, guess: Any, probability: Any, truth: Any, of_truth: Any
) -> HiddenWord:
    """The word at a place of a row in words, with what stands around it."""
    first, last = max(place - AROUND, 0), min(place + 1 + AROUND, len(row))
    before, after = tokenizer.words(row[first:place]).strip(), tokenizer.words(row[place + 1 : last]).strip()
    guesses = [(tokenizer.words([g]).strip(), round(float(p), 4)) for g, p in zip(guess, probability, strict=True)]
    return HiddenWord(
        before=f"… {before}" if first > 1 else before,
        truth=tokenizer.words([truth]).strip(),
        after=f"{after} …" if last < len(row) and row[last] >= SPECIAL_TOKENS else after,
        guesses=guesses,
        of_truth=round(float(of_truth), 4),
    )
