"""Texts as rows of token ids: a tokenizer trained on the training classes alone, and what it makes of all lines."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from metarep_jax.data.array_cache import cached, digest
from metarep_jax.data.feeds import batch_feed
from metarep_jax.data.source_arrays import Source
from metarep_jax.data.text.named_texts import Texts
from metarep_jax.data.text.tokenizer import TextConfig, Tokenizer, load_tokenizer, train_tokenizer
from metarep_jax.types import END_TOKEN, FIRST_TOKEN, PAD_TOKEN, Feed, Pool

log = logging.getLogger(__name__)


def tokenised(texts: Texts, training: Sequence[str], config: TextConfig, cache_dir: Path) -> tuple[Tokenizer, Source]:
    """The texts as a source of token ids [n, length], and the tokenizer.

    Args:
      texts: lines.
      training: the lines that the tokenizer is trained on.
      config: see ``TextConfig``.
      cache_dir: keeps the tokenizer, which takes seconds to train.

    Raises:
      ValueError: when there is no text, or the tokenizer given is not one.
    """
    if not texts.lines:
        raise ValueError("the text holds no lines")
    tokenizer = _tokenizer(training, config, cache_dir)
    if not texts.running:
        rows = tokenizer.rows(texts.lines, config.length)
        return tokenizer, Source(rows, texts.label, texts.names, texts.group, texts.part)
    packed = [packed_rows(tokenizer, _of_class(texts, c), config.length) for c in range(len(texts.names))]
    label = np.repeat(np.arange(len(packed), dtype=np.int32), [len(rows) for rows in packed])
    return tokenizer, Source(np.concatenate(packed), label, texts.names, texts.group)


def packed_rows(tokenizer: Tokenizer, lines: Sequence[str], length: int) -> Int[np.ndarray, "n length"]:
    """Running text cut into rows: [CLS] and the next ``length`` − 1 tokens, with [SEP] after every line that has words.

    The last row is filled up.
    """
    stream = [token for ids in tokenizer.ids(lines) if ids for token in (*ids, END_TOKEN)]
    each = length - 1
    rows = np.full((-(-len(stream) // each), length), PAD_TOKEN, np.int32)
    rows[:, 0] = FIRST_TOKEN
    filled = np.full(len(rows) * each, PAD_TOKEN, np.int32)
    filled[: len(stream)] = stream
    rows[:, 1:] = filled.reshape(-1, each)
    return rows


def text_feed(pool: Pool, size: int) -> Feed:
    """``batch_feed`` of rows of tokens.

    Raises:
      ValueError: when all of the text has fewer tokens than one batch.
    """
    rows, length = pool.inputs.shape
    if rows < size:
        tokens = int(np.sum(np.asarray(pool.inputs) != PAD_TOKEN))
        raise ValueError(
            f"the text has {tokens} tokens in {rows} rows of {length}, fewer than a batch of {size} rows takes; give "
            "more text, a smaller --….train.batch-size, or a smaller --data.length"
        )
    return batch_feed(pool, size)


def _tokenizer(lines: Sequence[str], config: TextConfig, cache_dir: Path) -> Tokenizer:
    if config.tokenizer_from is not None:
        return load_tokenizer(config.tokenizer_from)
    settings: dict[str, Any] = {"vocabulary": config.vocabulary, "lowercase": config.lowercase}
    key = digest([*settings.items(), *lines])

    def train() -> dict[str, np.ndarray]:
        return {"tokenizer": np.array([train_tokenizer(lines, **settings).text])}

    tokenizer = Tokenizer(cached(cache_dir, "tokenizer", key, train)["tokenizer"][0].item())
    log.info("tokenizer: %d tokens, trained on %d lines", tokenizer.size, len(lines))
    return tokenizer


def _of_class(texts: Texts, c: int) -> list[str]:
    return [texts.lines[i] for i in np.flatnonzero(texts.label == c)]
