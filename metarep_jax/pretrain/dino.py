"""DINO: a student matches the distribution that its momentum teacher, centred and sharpened, gives another view."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_momentum, check_not_negative, check_positive
from metarep_jax.pretrain.devices import mean_over
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.swav import frozen_until
from metarep_jax.pretrain.teacher import first_teacher, follow
from metarep_jax.pretrain.views import Augment, check_crops, make_views, swapped_cross_entropy
from metarep_jax.types import Keys, Objective


def dino(
    encoder: nn.Module,
    *,
    augment: Augment,
    momentum: float = 0.99,
    temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    centre_momentum: float = 0.9,
    prototypes: int = 1024,
    freeze_steps: int = 0,
    local_crops: int = 0,
    local_augment: Augment | str = "local-crop",
    hidden: int = 512,
    out: int = 128,
    axis_name: str | None = None,
    total_steps: int | None = None,
) -> Objective:
    """Self-distillation with no labels. Centring keeps one output from winning always, sharpening all from being equal.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      momentum: of the teacher, where it starts; the paper has 0.996. In [0, 1).
      temperature: τ_s of the student.
      teacher_temperature: τ_t; lower than the student's, which sharpens. The paper warms up from 0.04 to 0.07.
      centre_momentum: of the mean of the teacher's outputs over batches, which is subtracted from them; in [0, 1).
      prototypes: outputs; the paper has 65,536.
      freeze_steps: first steps in which the last layer stays as it is; the paper has one epoch.
      local_crops: multi-crop: so many more views, which only the student sees (``make_views``).
      local_augment: of those views: a name that ``data.make_augment`` knows, or a function as ``augment``.
      hidden, out: of the head's three layers; ``out`` is the bottleneck before the last, normalised layer.
      axis_name: the mapped axis over which the batch is sharded, or None.
      total_steps: where the teacher's momentum reaches 1, along a cosine; None: it stays.

    Returns:
      An ``Objective`` with metrics ``teacher_entropy`` (in nats; the log of ``prototypes`` or 0 are signs of collapse),
      ``embedding_std`` and ``effective_rank``. Features are the student's; the teacher is ``state["teacher"]``.

    Raises:
      ValueError: for settings out of range.

    References:
      Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, https://arxiv.org/abs/2104.14294,
      eq. 1 to 4, algorithm 1. The head's activation here is ReLU, in the paper GELU.
    """
    check_positive("dino", temperature=temperature, teacher_temperature=teacher_temperature, prototypes=prototypes)
    check_positive("dino", hidden=hidden, out=out)
    check_not_negative("dino", freeze_steps=freeze_steps)
    check_momentum("dino", momentum=momentum, centre_momentum=centre_momentum)
    local_augment = check_crops("dino", local_augment, local_crops)
    net = chain(encoder=encoder, projector=Head((hidden, hidden, out), norm="none"))

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        net_key, last_key = jax.random.split(key)
        params, state = net.init(net_key, batch, encoder_params)
        params = {**params, "prototypes": jax.random.normal(last_key, (prototypes, out))}
        return params, {**state, "teacher": first_teacher(params, *params), "centre": jnp.zeros(prototypes)}

    def scores(weights: Any, state: Any, views: Array) -> tuple[Array, Array, Any]:
        outputs, moved = apply_to_views(net, weights, state, views)
        return unit_rows(outputs["projector"]) @ unit_rows(weights["prototypes"]).T, outputs["encoder"], moved

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        views = make_views(augment, batch, keys, local_augment=local_augment, local_crops=local_crops)
        weights = {**params, "prototypes": frozen_until(params["prototypes"], step, freeze_steps)}
        student, features, moved = scores(weights, state, views)
        teacher = jax.lax.stop_gradient(scores(state["teacher"], state, views[:2])[0])
        target = jax.nn.softmax((teacher - state["centre"]) / teacher_temperature)
        value = swapped_cross_entropy(target, jax.nn.log_softmax(student / temperature))
        middle = mean_over(teacher.mean((0, 1)), axis_name)
        centre = centre_momentum * state["centre"] + (1 - centre_momentum) * middle
        metrics = {"teacher_entropy": jax.scipy.special.entr(target).sum(-1).mean()}
        return value, ({**moved, "centre": centre}, metrics | embedding_health(features, axis_name))

    return Objective(init, loss, encoder_features(encoder), follow(momentum, total_steps), needs=("views",))
