"""Class folds of two sets of intents: splits of both data sets, and the sentences that a fold trains on."""

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from metarep_jax.data.pools import joined_pools, pool_of_arrays
from metarep_jax.data.protocols import Classes, find_protocol
from metarep_jax.data.splits import DataConfig, Splits, load_splits, resolved
from metarep_jax.data.text.named_texts import read_texts
from metarep_jax.data.text.tokenizer import keep_tokenizer, train_tokenizer
from metarep_jax.data.text.tokens import TextConfig
from metarep_jax.types import Pool

DATA = ("banking77", "clinc150")
VALIDATION_SENTENCES = 40  # a class: enough for validation episodes, and soon embedded


class Fold(NamedTuple):
    """A fold's splits by data set, and ``text``: the training sentences of all of them, with nothing to be judged on.

    All share one tokenizer, which is trained on ``text``.
    """

    splits: dict[str, Splits]
    text: Splits


@lru_cache(maxsize=5)
def fold_of(number: int, text: TextConfig, data: DataConfig, folder: Path) -> Fold:
    """The fold of that number; its tokenizer is kept in ``folder``."""
    tokenizer = train_tokenizer(training_lines(number, data), vocabulary=text.vocabulary, lowercase=text.lowercase)
    folder.mkdir(parents=True, exist_ok=True)
    keep_tokenizer(folder, tokenizer)
    text = dataclasses.replace(text, tokenizer_from=folder)
    splits = {}
    for name in DATA:
        found = load_splits(
            dataclasses.replace(data, name=name, protocol=f"{name}-fold{number}", **dataclasses.asdict(text))
        )
        splits[name] = found._replace(val=thinned(found.val, VALIDATION_SENTENCES))
    first, second = splits.values()
    train = joined_pools(first.train, second.train)
    none = jax.tree.map(lambda leaf: leaf[:0], first.test)
    names = {"train": first.class_names["train"] + second.class_names["train"], "val": (), "test": ()}
    return Fold(splits, first._replace(train=train, val=none, test=none, class_names=names))


def training_lines(number: int, data: DataConfig) -> list[str]:
    """The sentences of a fold's training classes, of one data set after the other."""
    lines, data = [], resolved(data)
    assert data.cache_dir is not None
    for name in DATA:
        texts = read_texts(name, data.data_dir, data.cache_dir)
        protocol = find_protocol(f"{name}-fold{number}", name)
        assert protocol.split is not None
        training, _, _ = protocol.split(Classes(texts.names, texts.group, data.split_seed, data.data_dir))
        lines += [texts.lines[i] for i in np.flatnonzero(np.isin(texts.label, training))]
    return lines


def thinned(pool: Pool, most: int) -> Pool:
    """The pool with the first ``most`` rows of each class."""
    members, count = np.asarray(pool.members), np.minimum(np.asarray(pool.count), most)
    rows = np.concatenate([row[:n] for row, n in zip(members, count, strict=True)])
    return pool_of_arrays(np.asarray(pool.inputs)[rows], np.asarray(pool.label)[rows], classes=len(count))
