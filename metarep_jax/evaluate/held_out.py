"""An objective of stage 1 judged by itself: its loss and metrics on rows that it was not trained on."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from metarep_jax.evaluate.intervals import Interval, interval
from metarep_jax.types import SPECIAL_TOKENS, Keys, Objective, Pool


def held_out(
    objective: Objective, params: Any, state: Any, pool: Pool, *, key: Array, batch: int = 64
) -> dict[str, Interval]:
    """The means, over batches of the pool's rows, of ``loss`` and of the objective's own metrics; accuracies in %.

    Every row counts once, but for those that do not fill a last batch. Norms use each batch's own statistics, as in
    training.

    Args:
      objective: made without ``axis_name``.
      params, state: trained.
      pool: rows that were not trained on.
      key: of the order, and of what is random in the loss.
      batch: rows at once; fewer where the pool has fewer.
    """
    rows = pool.label.shape[0]
    size = min(batch, rows)

    @jax.jit
    def judge(index: Int[Array, " n"], key: Array) -> dict[str, Array]:
        inputs = {"inputs": pool.inputs[index], "index": index, "label": pool.label[index]}
        keys = Keys(jax.random.split(key, size), jax.random.fold_in(key, 2**31 - 1))
        loss, (_, metrics) = objective.loss(params, state, inputs, keys, 2**30)
        return {"loss": loss, **metrics}

    order = jax.random.permutation(jax.random.fold_in(key, 0), rows)
    parts = order[: rows // size * size].reshape(-1, size)
    found = [judge(index, jax.random.fold_in(key, 1 + part)) for part, index in enumerate(parts)]
    scale = {name: 100.0 if name.endswith("_accuracy") else 1.0 for name in found[0]}
    return {name: interval(scale[name] * np.array([float(each[name]) for each in found])) for name in found[0]}


def unigram(train: Int[Array, "m length"], test: Int[Array, "n length"], vocabulary: int) -> dict[str, Interval]:
    """What a masked language model reaches that knows how frequent each token is, and looks at nothing.

    Args:
      train, test: rows of token ids; padding and special tokens are not counted.
      vocabulary: number of tokens; each counts once more than it occurs in ``train``.

    Returns:
      ``loss``, the cross-entropy in nats a token of ``test``, and ``masked_accuracy``, the share in % of its most
      frequent token in ``train``.
    """
    counted = np.bincount(np.asarray(train)[np.asarray(train) >= SPECIAL_TOKENS], minlength=vocabulary)
    smoothed = np.where(np.arange(vocabulary) >= SPECIAL_TOKENS, counted + 1.0, 0.0)
    tokens = np.asarray(test)[np.asarray(test) >= SPECIAL_TOKENS]
    loss = -np.log(smoothed[tokens] / smoothed.sum()).mean()
    hits = 100.0 * np.mean(tokens == counted.argmax())
    return {"loss": Interval(float(loss), None, 1), "masked_accuracy": Interval(float(hits), None, 1)}
