"""Words hidden from a text, and what a masked language model takes them for."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarep_jax.evaluate.hidden_words import HiddenWord
from metarep_jax.report.figures.canvas import FAINT, INK, PALETTE, QUIET, drawing, printable, shortened

RIGHT, WRONG, MISSED = PALETTE[2], "#b8c0c8", PALETTE[1]
ROW, WIDTH = 1.12, 9.0  # inches
LINE = 62  # letters of text a line
BLANK = "▁" * 5
LABEL = 18  # letters of a guess


def save_masked_words(path: Path | str, words: Sequence[HiddenWord]) -> None:
    """Writes a row a hidden word: its text with a blank, the word, and bars of the likeliest guesses.

    The right guess is green; where it is not among them, it stands below them with its own probability, in orange.

    Args:
      path: of the PNG.
      words: at least one.
    """
    with drawing(path, WIDTH, 0.4 + ROW * len(words), wspace=0.02, hspace=0.04) as figure:
        panels = figure.subplots(len(words), 2, squeeze=False, width_ratios=(1.25, 1))
        for (text, bars), word in zip(panels, words):
            _text(text, word)
            _bars(bars, word)
        panels[0][0].set_title("text, and the word hidden from it")
        panels[0][1].set_title("the model's guesses")


def bars_of(word: HiddenWord) -> list[tuple[str, float, str]]:
    """The bars of a word: guess, probability and colour; the word itself last where it is not among the guesses."""
    bars = [(guess, p, RIGHT if guess == word.truth else WRONG) for guess, p in word.guesses]
    missed = all(guess != word.truth for guess, _ in word.guesses)
    return bars + [(word.truth, word.of_truth, MISSED)] * missed


def _text(axes: Any, word: HiddenWord) -> None:
    axes.set_axis_off()
    lines = textwrap.wrap(printable(f"{word.before} {BLANK} {word.after}".strip()), LINE)
    look: Any = {"transform": axes.transAxes, "va": "top", "fontsize": 8.5}
    axes.text(0, 0.98, "\n".join(lines), color=INK, linespacing=1.35, **look)
    axes.text(0, 0.94 - 0.17 * len(lines), shortened(word.truth, LINE), color=RIGHT, weight="bold", **look)


def _bars(axes: Any, word: HiddenWord) -> None:
    bars = bars_of(word)
    for k, (_, p, colour) in enumerate(bars):
        axes.barh(k, p, height=0.7, color=colour)
        axes.text(p + 0.012, k, f"{100 * p:.{0 if p >= 0.1 else 1}f}%", va="center", fontsize=7, color=QUIET)
    names = [shortened(guess, LABEL) for guess, *_ in bars]
    axes.set_yticks(range(len(bars)), names, fontsize=7.5, color=INK)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_color(FAINT)
