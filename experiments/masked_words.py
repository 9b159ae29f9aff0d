"""Words hidden from the test rows, and what a masked language model takes them for; kept in ``masked_words.json``."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from experiments.common import Run
from experiments.figures import first_draws
from metarep_jax.data.tokenizer import Tokenizer
from metarep_jax.files import atomic_write
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.pretrain.masked_lm import masked_guesses
from metarep_jax.report.figures import HiddenWord, save_masked_words
from metarep_jax.types import SPECIAL_TOKENS

FILE = "masked_words.json"
SHOWN, AROUND = 7, 12  # words, and the tokens shown on either side of each


def keep_masked_words(run: Run, folder: Path, config: ObjectiveConfig, encoder: Any, fitted: Any) -> None:
    """Writes what ``masked_words_figure`` draws; nothing for other objectives than masked_lm.

    Args:
      run: with the test rows and the tokenizer.
      folder: of the stage.
      config: of the objective.
      encoder: made without ``axis_name``.
      fitted: anything with ``params`` and ``state``.
    """
    tokenizer = run.splits.tokenizer
    if config.name != "masked_lm" or tokenizer is None:
        return
    rows, place = some_words(tokenizer, np.asarray(run.splits.test.inputs), run.config.seed)
    if len(rows):
        guess = jax.jit(masked_guesses, static_argnums=0)
        found = guess(encoder, fitted.params, fitted.state, jnp.asarray(rows), jnp.asarray(place))
        words = [hidden_word(tokenizer, *one) for one in zip(rows, place, *map(np.asarray, found), strict=True)]
        atomic_write(folder / FILE, json.dumps([word._asdict() for word in words], indent=2) + "\n")


def some_words(
    tokenizer: Tokenizer, rows: Int[np.ndarray, "n length"], seed: int
) -> tuple[Int[np.ndarray, "shown length"], Int[np.ndarray, " shown"]]:
    """Some rows at random, and the place of one word in each; fewer where there are not enough rows with words."""
    random = np.random.default_rng(seed)
    shown, place = [], []
    for row in rows[random.permutation(len(rows))]:
        if len(shown) == SHOWN:
            break
        if places := whole_words(tokenizer, row):
            shown.append(row)
            place.append(random.choice(places))
    return np.array(shown, np.int32).reshape(-1, rows.shape[1]), np.array(place, np.int32)


def whole_words(tokenizer: Tokenizer, row: Int[np.ndarray, " length"]) -> list[int]:
    """The places of those tokens of a row that are words by themselves: letters between a space and what is none."""
    texts = [tokenizer.words([token]) for token in row]  # of special tokens: ""
    return [
        place
        for place, (text, following) in enumerate(zip(texts, [*texts[1:], ""], strict=True))
        if text.startswith(" ") and text[1:].isalpha() and not following[:1].isalpha()
    ]


def hidden_word(
    tokenizer: Tokenizer, row: Any, place: int, guess: Any, probability: Any, truth: int, of_truth: float
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


def has_masked_words(folder: Path) -> bool:
    """Whether a stage left words to draw."""
    return (folder / FILE).is_file()


@first_draws
def masked_words_figure(path: Path, run: Run) -> None:
    """Hidden words of the test rows and the model's guesses."""
    words = json.loads((run.folder / FILE).read_text(encoding="utf-8"))
    save_masked_words(path, [HiddenWord(**word) for word in words])
