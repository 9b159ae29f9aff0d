"""Distillation of features without labels: a student predicts, from a view of an image, what a teacher makes of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from metarep_jax.data.warp import Augment
from metarep_jax.pretrain.chain import chain, encoder_features
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.simsiam import negative_cosine
from metarep_jax.types import Keys, Objective


def distil_features(
    encoder: nn.Module,
    *,
    teach: Callable[[Int[Array, " n"]], Float[Array, "n dim"]],
    augment: Augment,
    axis_name: str | None = None,
) -> Objective:
    """Regression of a frozen teacher's features; a linear layer, dropped afterwards, maps the student's to them.

    With a teacher of the student's own shape this is self-distillation; one that averages over views of an image gives
    the student in one pass what costs the teacher many.

    Args:
      encoder: the student, a module of ``metarep_jax.encoders``.
      teach: ``index [n] -> features [n, dim]`` of the training images of that index; no gradient reaches it.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` whose loss is 2 minus twice the cosine, between 0 and 4, with metrics ``embedding_std`` and
      ``effective_rank``.

    References:
      Furlanello et al. 2018, Born-Again Neural Networks, https://arxiv.org/abs/1805.04770, for a student of the
      teacher's own shape; the loss is eq. 2 of Grill et al. 2020, https://arxiv.org/abs/2006.07733.
    """
    dim = jax.eval_shape(teach, jnp.zeros(1, jnp.int32)).shape[1]
    net = chain(encoder=encoder, regressor=nn.Dense(dim))

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        outputs, state = net.apply(params, state, augment(keys.example, batch["inputs"]))
        target = jax.lax.stop_gradient(teach(batch["index"]))
        value = 2 + 2 * negative_cosine(outputs["regressor"], target)
        return value, (state, embedding_health(outputs["encoder"], axis_name))

    return Objective(net.init, loss, encoder_features(encoder))
