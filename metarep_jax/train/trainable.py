"""Every stage reduces to a ``Trainable``: an initialisation and a gradient."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from metarep_jax.metalearn.base import check_masks
from metarep_jax.metalearn.meta_gradient import meta_gradient
from metarep_jax.types import EpisodeSpec, Keys, MetaLearner, Metrics, Objective, Trainable


def pretraining(objective: Objective, encoder_params: Any = None) -> Trainable:
    """Stage 1: the gradient of ``objective.loss`` on a batch; ``encoder_params`` starts the encoder."""

    def init(key: Array, batch: dict) -> tuple[Any, Any]:
        return objective.init(key, batch, encoder_params)

    def grads(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Any, Any, Metrics]:
        gradient = jax.value_and_grad(objective.loss, has_aux=True)
        (loss, (state, metrics)), grad = gradient(params, state, batch, keys, step)
        return grad, state, {"loss": loss, **metrics}

    return Trainable(init, grads, objective.after_update, objective.refresh)


def meta_learning(
    learner: MetaLearner, spec: EpisodeSpec | None = None, *, encoder_params: Any = None, chunk: int | None = None
) -> Trainable:
    """Stage 2: the learner's meta-gradient on a batch of episodes (leading task axis).

    Args:
      learner: its own ``meta_grad``, or the default, ``metalearn.meta_gradient``.
      spec: what the feed's episodes are sampled by; checked against the batch before anything compiles.
      encoder_params: an earlier stage's encoder, to start from.
      chunk: tasks taken at once; None chooses for the backend.

    Raises:
      ValueError: for a baseline, which cannot be meta-trained.
    """
    if learner.meta_grad is None:
        gradient = meta_gradient(learner, chunk)
    else:
        gradient = learner.meta_grad if chunk is None else partial(learner.meta_grad, chunk=chunk)

    def init(key: Array, episodes: PyTree) -> tuple[Any, Any]:
        rows = episodes.support.label.shape[1]
        if spec is not None and rows != spec.way * spec.shot:
            raise ValueError(f"the feed's episodes have {rows} support examples, {spec} has {spec.way * spec.shot}")
        check_masks(episodes)
        return learner.init(key, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), episodes), encoder_params)

    return Trainable(init, gradient)


def has_refresh(trainable: Trainable) -> bool:
    """Whether the method refreshes its pool."""
    return trainable.refresh is not Trainable._field_defaults["refresh"]
