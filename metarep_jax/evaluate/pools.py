"""A pool's features, computed once, and its labelled splits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from metarep_jax.encoders.features import compute_features
from metarep_jax.types import Pool


def feature_pool(embed: Callable[[Array], Array], pool: Pool, *, rotations: bool = False, batch: int = 256) -> Pool:
    """The pool with features for inputs; ``rotations``: every quarter turn of a class becomes a class of its own.

    With ``Identity()`` for an encoder, any learner that leaves the encoder alone gives on this pool what it gives on
    the images, without computing a feature twice.
    """
    turns = range(4) if rotations else range(1)
    turned = (jnp.rot90(pool.inputs, turn, axes=(1, 2)) if turn else pool.inputs for turn in turns)
    inputs = [compute_features(embed, images, batch=batch) for images in turned]
    classes, rows = pool.members.shape[0], pool.label.shape[0]
    return Pool(
        inputs=jnp.concatenate(inputs),
        label=jnp.concatenate([pool.label + turn * classes for turn in turns]),
        members=jnp.concatenate([pool.members + turn * rows for turn in turns]),
        count=jnp.concatenate([pool.count for _ in turns]),
    )


def split_examples(pool: Pool, key: Array, test_share: float = 0.25) -> tuple[Int[Array, " a"], Int[Array, " b"]]:
    """Rows for training and for testing, drawn within every class; at least one of each a class.

    Raises:
      ValueError: when a class has fewer than two examples, or the share is not between 0 and 1.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share}")
    count, members = np.asarray(pool.count), np.asarray(pool.members)
    if count.min() < 2:
        raise ValueError(f"a labelled split needs 2 examples a class; class {int(count.argmin())} has {count.min()}")
    train, test = [], []
    for c, each in enumerate(jax.random.split(key, len(count))):
        rows = np.asarray(jax.random.permutation(each, members[c, : count[c]]))
        held = min(max(round(test_share * len(rows)), 1), len(rows) - 1)
        test.append(rows[:held])
        train.append(rows[held:])
    return jnp.asarray(np.concatenate(train)), jnp.asarray(np.concatenate(test))
