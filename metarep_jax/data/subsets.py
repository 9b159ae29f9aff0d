"""Splits with other training classes than the protocol's."""

import jax
import numpy as np

from metarep_jax.data.pools import joined_pools, pool_of_arrays
from metarep_jax.data.splits import Splits


def with_validation_classes(splits: Splits) -> Splits:
    """The splits with the validation classes among the training classes, and nothing to validate on."""
    names = {**splits.class_names, "train": splits.class_names["train"] + splits.class_names["val"], "val": ()}
    none = jax.tree.map(lambda leaf: leaf[:0], splits.val)
    return splits._replace(train=joined_pools(splits.train, splits.val), val=none, class_names=names)


def with_labelled_classes(splits: Splits, classes: int, seed: int) -> Splits:
    """The splits with the training rows of ``classes`` classes alone, drawn at random by the seed; those of a smaller
    number are among them.

    Raises:
      ValueError: for more classes than there are.
    """
    pool, most = splits.train, splits.train.count.shape[0]
    if not 1 <= classes <= most:
        raise ValueError(f"there are {most} training classes, so that 1 to {most} can have labels, got {classes}")
    chosen = np.random.default_rng(seed).permutation(most)[:classes]
    members, count = np.asarray(pool.members)[chosen], np.asarray(pool.count)[chosen]
    rows = np.concatenate([row[:n] for row, n in zip(members, count, strict=True)])
    labels = np.repeat(np.arange(classes, dtype=np.int32), count)
    names = {**splits.class_names, "train": tuple(splits.class_names["train"][i] for i in chosen)}
    return splits._replace(
        train=pool_of_arrays(np.asarray(pool.inputs)[rows], labels, classes=classes), class_names=names
    )
