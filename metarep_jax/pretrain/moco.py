"""Momentum contrast: a query must find its key, by a momentum teacher, among a queue of earlier keys."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_momentum, check_positive, with_least_batch
from metarep_jax.pretrain.contrast import info_nce
from metarep_jax.pretrain.devices import gather_rows
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.queue import enqueue, first_queue
from metarep_jax.pretrain.shuffled_norm import apply_in_groups, check_groups, shuffle, unsynchronised
from metarep_jax.pretrain.teacher import follow, with_teacher
from metarep_jax.pretrain.views import Augment, make_views
from metarep_jax.types import Keys, Objective


def moco(
    encoder: nn.Module,
    *,
    augment: Augment,
    momentum: float = 0.99,
    temperature: float = 0.2,
    queue: int = 4096,
    groups: int = 8,
    hidden: int = 256,
    out: int = 128,
    axis_name: str | None = None,
) -> Objective:
    """MoCo v2. Teacher and student normalise in ``groups`` of the global batch, the teacher after a shuffle.

    The groups, not the devices, decide whose statistics are taken together: the update is the same on any number of
    devices that divides ``groups``, one included (``shuffled_norm``). ``encoder`` may have any ``axis_name``.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      momentum: m of the teacher; the paper has 0.999 for a queue of 65,536. In [0, 1).
      temperature: τ; positive.
      queue: keys kept; a multiple of the global batch.
      groups: of batch norm; 8, as the paper has GPUs.
      hidden, out: sizes of the projector's two layers, without a norm.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` with metrics ``contrastive_accuracy``, ``embedding_std`` and ``effective_rank``; teacher and
      queue are in ``state``.

    Raises:
      ValueError: for settings out of range, and by ``init`` and ``loss`` for a queue that the batch does not divide and
        for groups that do not divide it.

    References:
      He et al. 2020, https://arxiv.org/abs/1911.05722, algorithm 1; Chen et al. 2020, Improved Baselines with Momentum
      Contrastive Learning, https://arxiv.org/abs/2003.04297, for the projector and the temperature.
    """
    check_positive("moco", temperature=temperature, queue=queue, groups=groups, hidden=hidden, out=out)
    check_momentum("moco", momentum=momentum)
    net = chain(encoder=unsynchronised(encoder), projector=Head((hidden, out), norm="none"))

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        check_groups(groups, batch["inputs"].shape[0])
        net_key, queue_key = jax.random.split(key)
        params, state = with_teacher(net.init, "encoder", "projector")(net_key, batch, encoder_params)
        keys = first_queue(queue_key, queue, out, batch["inputs"].shape[0])
        return params, {**state, "queue": keys}

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        grouped = {"groups": groups, "axis_name": axis_name}
        query_views, key_views = make_views(augment, batch, keys)
        stats = {name: state[name] for name in ("encoder", "projector")}
        outputs, moved = apply_in_groups(net, params, stats, query_views, **grouped)
        shuffled, back = shuffle(keys.shared, key_views, axis_name)
        targets, _ = apply_in_groups(net, state["teacher"], stats, shuffled, **grouped)
        query, key = unit_rows(outputs["projector"]), jax.lax.stop_gradient(unit_rows(back(targets["projector"])))
        value, metrics = info_nce(query, key, state["queue"].rows, temperature=temperature)
        state = {**state, **moved, "queue": enqueue(state["queue"], gather_rows(key, axis_name))}
        return value, (state, metrics | embedding_health(outputs["encoder"], axis_name))

    return Objective(init, loss, encoder_features(encoder), follow(momentum), needs=("views",))


def moco_v3(
    encoder: nn.Module,
    *,
    augment: Augment,
    momentum: float = 0.99,
    temperature: float = 0.2,
    hidden: int = 512,
    out: int = 128,
    axis_name: str | None = None,
    total_steps: int | None = None,
) -> Objective:
    """MoCo v3: no queue; each view is the query to the other's key, among the keys of the global batch.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment, axis_name: as in ``moco``.
      momentum: of the teacher, where it starts; in [0, 1).
      temperature: τ; positive.
      hidden, out: widths of the projector, three layers, and of the predictor, two; the paper has 4096 and 256.
      total_steps: where the momentum reaches 1, along a cosine; None: it stays.

    Returns:
      An ``Objective`` with the metrics of ``moco``.

    Raises:
      ValueError: for settings out of range, and by ``init`` for a batch of one.

    References:
      Chen et al. 2021, An Empirical Study of Training Self-Supervised Vision Transformers,
      https://arxiv.org/abs/2104.02057, algorithm 1; its factor 2τ keeps the gradient's size when τ changes.
    """
    check_positive("moco_v3", temperature=temperature, hidden=hidden, out=out)
    check_momentum("moco_v3", momentum=momentum)
    projector = Head((hidden, hidden, out), last_norm=True, axis_name=axis_name)
    predictor = Head((hidden, out), last_norm=True, axis_name=axis_name)
    target = chain(encoder=encoder, projector=projector)
    online = chain(encoder=encoder, projector=projector, predictor=predictor)

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        views = make_views(augment, batch, keys)
        outputs, moved = apply_to_views(online, params, state, views)
        targets, _ = apply_to_views(target, state["teacher"], state, views)
        (q1, q2), (k1, k2) = unit_rows(outputs["predictor"]), jax.lax.stop_gradient(unit_rows(targets["projector"]))
        contrast = [info_nce(q, k, temperature=temperature, axis_name=axis_name) for q, k in ((q1, k2), (q2, k1))]
        value = 2 * temperature * (contrast[0][0] + contrast[1][0])
        metrics = jax.tree.map(lambda one, other: jnp.mean(jnp.stack([one, other])), contrast[0][1], contrast[1][1])
        return value, (moved, metrics | embedding_health(outputs["encoder"], axis_name))

    init = with_least_batch(
        "moco_v3", with_teacher(online.init, "encoder", "projector"), "since it contrasts them with each other"
    )
    return Objective(init, loss, encoder_features(encoder), follow(momentum, total_steps), needs=("views",))
