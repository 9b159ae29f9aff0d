"""PsCo: pseudo-supervised contrast. Every step is a few-shot task, of a batch and a queue, without labels."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain.chain import Chain, chain, encoder_features
from metarep_jax.pretrain.checks import check_momentum, check_positive, with_least_batch
from metarep_jax.pretrain.contrast import info_nce
from metarep_jax.pretrain.devices import gather_rows, own_rows
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.queue import enqueue, first_queue
from metarep_jax.pretrain.sinkhorn import sinkhorn
from metarep_jax.pretrain.teacher import follow, with_teacher
from metarep_jax.pretrain.views import Augment, make_views
from metarep_jax.types import Keys, Objective


def psco(
    encoder: nn.Module,
    *,
    augment: Augment,
    momentum: float = 0.99,
    temperature: float = 0.2,
    task_temperature: float = 1.0,
    shot: int = 1,
    queue: int = 4096,
    epsilon: float = 0.05,
    iterations: int = 3,
    hidden: int = 512,
    out: int = 128,
    axis_name: str | None = None,
) -> Objective:
    """Every image of the global batch is the query of a class of its own; its support set comes from the queue.

    The loss is a supervised contrast of the queries with the N·``shot`` support embeddings, plus MoCo's.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      momentum: m of the teacher that makes keys; in [0, 1).
      temperature: of MoCo's term; positive.
      task_temperature: of the task's term; positive.
      shot: K; the authors take 1 on Omniglot, 4 on miniImageNet.
      queue: keys kept, a multiple of the global batch; the authors have 16,384.
      epsilon, iterations: of the Sinkhorn assignment.
      hidden, out: widths of projector and predictor, two layers each; the authors have 4096 and 256.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` with metrics ``task_loss``, ``task_accuracy`` (the share of queries whose most similar support
      embedding is of their class), ``contrastive_accuracy``, ``embedding_std`` and ``effective_rank``.

    Raises:
      ValueError: for settings out of range, by ``init`` for a batch of one, and by ``init`` and ``loss`` for a queue
        that the batch does not divide.

    References:
      Jang et al., Unsupervised Meta-learning via Few-shot Pseudo-supervised Contrastive Learning, ICLR 2023,
      https://arxiv.org/abs/2303.00996, section 3; settings from the authors' https://github.com/alinlab/PsCo.
    """
    check_positive("psco", temperature=temperature, task_temperature=task_temperature, shot=shot, queue=queue)
    check_positive("psco", epsilon=epsilon, iterations=iterations, hidden=hidden, out=out)
    check_momentum("psco", momentum=momentum)
    if shot > queue:
        raise ValueError(f"psco: {shot} shots cannot be taken from a queue of {queue}")
    projector = Head((hidden, out), last_norm=True, axis_name=axis_name)
    target = chain(encoder=encoder, projector=projector)
    online: Chain = chain(encoder=encoder, projector=projector, predictor=Head((hidden, out), axis_name=axis_name))

    def begin(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        net_key, queue_key = jax.random.split(key)
        params, state = with_teacher(online.init, "encoder", "projector")(net_key, batch, encoder_params)
        keys = first_queue(queue_key, queue, out, batch["inputs"].shape[0])
        return params, {**state, "queue": keys}

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        query_views, key_views = make_views(augment, batch, keys)
        outputs, moved = online.apply(params, state, query_views)
        targets, _ = target.apply(state["teacher"], state, key_views)
        query, key = unit_rows(outputs["predictor"]), jax.lax.stop_gradient(unit_rows(targets["projector"]))
        earlier, everyone = state["queue"].rows, gather_rows(key, axis_name)
        support = earlier[pseudo_support(everyone, earlier, shot, epsilon, iterations)]  # [N, shot, dim]
        task_loss, task_accuracy = pseudo_task(
            query, support, own_rows(query.shape[0], axis_name), temperature=task_temperature
        )
        contrast, metrics = info_nce(query, key, earlier, temperature=temperature)
        metrics |= {"task_loss": task_loss, "task_accuracy": task_accuracy}
        state = {**moved, "queue": enqueue(state["queue"], everyone)}
        return task_loss + contrast, (state, metrics | embedding_health(outputs["encoder"], axis_name))

    init = with_least_batch("psco", begin, "since its heads normalise over them")
    return Objective(init, loss, encoder_features(encoder), follow(momentum), needs=("views",))


def pseudo_support(
    key: Float[Array, "n dim"], earlier: Float[Array, "k dim"], shot: int, epsilon: float, iterations: int
) -> Int[Array, "n shot"]:
    """For each image's key, the ``shot`` rows of the queue with the largest share in its Sinkhorn assignment.

    The assignment spreads the queue evenly over the images, so that a row that is close to everything serves few.
    """
    return jax.lax.top_k(sinkhorn(key @ earlier.T, epsilon=epsilon, iterations=iterations), shot)[1]


def pseudo_task(
    query: Float[Array, "n dim"],
    support: Float[Array, "way shot dim"],
    label: Int[Array, " n"],
    *,
    temperature: float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Supervised contrast of the queries with a task's support embeddings, and its accuracy: the mean over a query's
    own class of −log p(support | query)."""
    way, shot, dim = support.shape
    logits = query @ support.reshape(way * shot, dim).T / temperature
    logp = jax.nn.log_softmax(logits).reshape(-1, way, shot)
    own = jnp.take_along_axis(logp, label[:, None, None], axis=1)
    return -own.mean(), jnp.mean(jnp.argmax(logits, axis=-1) // shot == label)
