"""One task from end to end: adapt on the support set, predict the queries, score the predictions."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from metarep_jax.types import Context, Episode, MetaLearner, Metrics, Outputs

SUPPORT_LOSS = "support_loss/"  # metrics of the inner loop, by the steps taken before; train/divergence.py reads them


class TaskOutcome(NamedTuple):
    """What a learner did on one task.

    ``task`` is what it adapted to, ``outputs`` those of the queries (named layers, no state), ``state`` the state after
    this pass, ``loss`` that of the queries, and ``metrics`` the loss, the learner's own metrics of the queries, and the
    support loss before each inner step.
    """

    task: Any
    outputs: Outputs
    state: Any
    loss: Float[Array, ""]
    metrics: Metrics


def run_task(learner: MetaLearner, params: Any, state: Any, episode: Episode, key: Any, ctx: Context) -> TaskOutcome:
    """``learner`` adapts to the episode's support set, predicts its queries and is scored on them.

    Training, distillation and evaluation all come through here, so that masked rows count in none of them. What a
    caller does not use costs nothing under ``jit``.

    Args:
      learner, params, state: who adapts, and from where.
      episode: one task; queries whose mask is False enter neither batch statistics nor scores.
      key: the randomness of adaptation.
      ctx: ``learner.train_context`` or ``test_context``, or a variant of one.

    Raises:
      ValueError: for queries with a mask and a learner whose ``predict`` takes none.
    """
    support, query = episode
    mask = {} if query.mask is None else {"mask": query.mask}  # learners of one's own may know no mixed episodes
    if mask and not takes_mask(learner.predict):
        raise ValueError(
            "episodes of several ways or shots have rows that do not count, and this learner's predict has no keyword "
            "mask=None to be told which; give it one, or leave least_way and least_shot out"
        )
    task = learner.adapt(params, state, support, key, ctx)
    outputs = dict(learner.predict(params, state, task, query.inputs, ctx, **mask))
    state = outputs.pop("state", state)
    loss = learner.loss(outputs, query)
    metrics = {"loss": loss, **learner.metrics(outputs, query), **support_losses(task)}
    return TaskOutcome(task, outputs, state, loss, metrics)


def takes_mask(predict: Callable[..., Any]) -> bool:
    """Whether a learner's ``predict`` can be told which queries count."""
    parameters = inspect.signature(predict).parameters
    return "mask" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def check_trainable(learner: MetaLearner) -> None:
    """Raises ValueError, with the learner's own reason, for one that judges an encoder and cannot be meta-trained."""
    if not learner.trainable:
        raise ValueError(learner.untrainable)


def support_losses(task: Any) -> Metrics:
    """The support loss before each inner step, of a ``task`` that keeps them."""
    losses = task.get("support_loss", ()) if isinstance(task, dict) else ()
    return {f"{SUPPORT_LOSS}{step}": loss for step, loss in enumerate(losses)}
