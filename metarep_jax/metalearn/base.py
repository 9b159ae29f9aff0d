"""What meta-learners share: losses of outputs, class numbers as rows, and checks of labels and masks."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Shaped

from metarep_jax import losses
from metarep_jax.types import Episode, Examples, Outputs

UNREACHABLE = -1e9  # a logit whose probability is 0 in every precision, and whose gradient is a number


def cross_entropy(outputs: Outputs, query: Examples) -> Float[Array, ""]:
    """Mean over rows of −log softmax(``outputs["logits"]`` [n, way])[label], in nats."""
    return losses.cross_entropy(outputs["logits"], query.label, query.mask)


def squared_error(outputs: Outputs, query: Examples) -> Float[Array, ""]:
    """Mean over rows and target dimensions of (``outputs["mean"]`` − label)²; both [n, d]."""
    return losses.squared_error(outputs["mean"], query.label, query.mask)


def class_members(
    label: Int[Array, " n"], way: int, mask: Shaped[Array, " n"] | None = None, dtype: Any = jnp.float32
) -> Float[Array, "n way"]:
    """Labels as rows of one 1; rows that ``mask`` leaves out are 0."""
    member = jax.nn.one_hot(label, way, dtype=dtype)
    return member if mask is None else member * mask[:, None]


def seen_classes_only(logits: Float[Array, "n way"], support: Examples) -> Float[Array, "n way"]:
    """The logits, those of classes without a support example that counts lowered out of reach.

    Without a mask every class has examples, and nothing changes.
    """
    if support.mask is None:
        return logits
    member = class_members(support.label, logits.shape[-1], support.mask)
    return jnp.where(member.any(0), logits, UNREACHABLE)


def check_labels(episode: Episode, wanted: Literal["class numbers", "targets"], what: str) -> None:
    """Raises ValueError when a task's labels are of the other kind; ``what`` names the learner."""
    label = episode.support.label
    found = "class numbers" if jnp.issubdtype(label.dtype, jnp.integer) else "targets"
    if found != wanted:
        kinds = {"class numbers": "classification: class numbers [n]", "targets": "regression: float targets [n, d]"}
        raise ValueError(
            f"{what} takes {kinds[wanted]}; this task is {kinds[found]}, here {label.dtype} of shape {label.shape}"
        )


def check_masks(episodes: Episode) -> None:
    """Raises ValueError when a task [tasks, n] has queries of a class whose support is all masked.

    Arrays that are being traced hold nothing yet, and pass.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(episodes))
    if traced or episodes.support.mask is None or not jnp.issubdtype(episodes.query.label.dtype, jnp.integer):
        return
    label, mask = np.asarray(episodes.query.label), np.asarray(episodes.support.mask)
    asked = np.ones_like(label, bool) if episodes.query.mask is None else np.asarray(episodes.query.mask)
    for task, rows in enumerate(np.asarray(episodes.support.label)):
        if (lost := np.setdiff1d(label[task][asked[task]], rows[mask[task]])).size:
            names = ", ".join(map(str, lost))
            raise ValueError(f"task {task}: the mask leaves class {names} without support, but queries ask for it")
