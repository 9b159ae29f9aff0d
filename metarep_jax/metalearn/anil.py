"""Half of the network adapts: its head alone (ANIL), or its encoder alone (BOIL)."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.metalearn.inner import inner_loop
from metarep_jax.metalearn.maml import fast_weights
from metarep_jax.metalearn.network import Network, Output, check_inner_loop, inner_steps_of, network, zero_head
from metarep_jax.metalearn.settings import check_positive
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode

MakeHead = Callable[[int], nn.Module]  # the number of outputs -> features [n, dim] -> outputs [n, way]


def anil(
    encoder: nn.Module,
    *,
    way: int,
    head: MakeHead | None = zero_head,
    inner_lr: float = 0.4,
    inner_steps: int = 1,
    test_steps: int = 3,
    order: Literal[1, 2] = 2,
    remat: bool = False,
    mixed: bool = False,
    test_norm: NormMode = "transductive",
    output: Output = "logits",
) -> MetaLearner:
    """Almost no inner loop: MAML in which only the head adapts; the encoder is learned by the outer loop alone.

    The support set is encoded once a task, and the inner loop runs on its features. The encoder's weights are the
    same for all tasks, so that they are never copied.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      head: makes the head for so many outputs.
      inner_lr: α, the step size on the mean support loss (``maml`` tells of the trap in that).
      inner_steps, test_steps: inner steps in training and at test.
      order: 1 drops second derivatives (first-order MAML), 2 differentiates through the inner gradients.
      remat: recompute inner steps in the backward pass, in nested groups, to save memory (``inner.inner_loop``).
      mixed: differentiate through inner gradients forward over reverse, to save memory (``inner.inner_loop``).
      test_norm: whose statistics batch norm uses for the queries at test; training uses those of the query batch.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head"}`` whose ``task`` is the fast head and the support set.

    Raises:
      ValueError: without a head, for a rate that is not positive, a negative number of steps, or an order other than
        1 and 2; by ``init``, for a head without parameters.

    References:
      Raghu et al. 2020, https://arxiv.org/abs/1909.09157, section 4.
    """
    if head is None:
        raise ValueError(
            "ANIL adapts its head, so it needs one, got head=None. To classify by features alone, take the "
            "prototypical learner with the cosine distance"
        )
    check_positive("ANIL", inner_lr=inner_lr)
    check_inner_loop("ANIL", inner_steps=inner_steps, test_steps=test_steps, order=order, test_norm=test_norm)
    net = network(encoder, way, output, head(way), what="ANIL")

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        features = net.support(params, state, support, ctx)["features"]

        def support_loss(head: Any, step: Any) -> Array:
            del step
            return net.loss(net.outputs({"head": head}, features), support)

        fast, losses = inner_loop(
            support_loss, params["head"], steps=inner_steps_of(ctx, inner_steps, test_steps), learning_rate=inner_lr,
            order=ctx.order, remat=remat, mixed=mixed,
        )  # fmt: skip
        return {"head": fast, "support": support, "support_loss": losses}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        return net.query({**params, "head": task["head"]}, state, task["support"], inputs, ctx, mask)

    return MetaLearner(
        init=_init(net, "head", "ANIL"),
        adapt=adapt,
        predict=predict,
        loss=net.loss,
        train_context=Context(train=True, order=order),
        test_context=Context(norm=test_norm),
        shares_encoder=True,
    )


def boil(
    encoder: nn.Module,
    *,
    way: int,
    head: MakeHead | None = nn.Dense,
    inner_lr: float = 0.4,
    inner_steps: int = 1,
    test_steps: int = 3,
    order: Literal[1, 2] = 2,
    remat: bool = False,
    mixed: bool = False,
    test_norm: NormMode = "transductive",
    output: Output = "logits",
) -> MetaLearner:
    """Body only in the inner loop: MAML in which only the encoder adapts; the outer loop learns both.

    The head must not start at zero: the inner gradient reaches the encoder through the head's weights, and zero
    weights pass none. No task would adapt, and since classes are numbered anew in every episode the meta-gradient
    of such a head is noise around zero.

    Args:
      encoder: a module of ``metarep_jax.encoders``, made with ``adapted=True``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      head: makes the head for so many outputs; by default linear and random.
      inner_lr: α, the step size on the mean support loss (``maml`` tells of the trap in that).
      inner_steps, test_steps: inner steps in training and at test.
      order: 1 drops second derivatives (first-order MAML), 2 differentiates through the inner gradients.
      remat: recompute inner steps in the backward pass, in nested groups, to save memory (``inner.inner_loop``).
      mixed: differentiate through inner gradients forward over reverse, to save memory (``inner.inner_loop``).
      test_norm: whose statistics batch norm uses for the queries at test; training uses those of the query batch.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head"}`` whose ``task`` is the fast encoder and the support set.

    Raises:
      ValueError: without a head, for a rate that is not positive, a negative number of steps, or an order other than
        1 and 2; by ``init``, for an encoder without parameters.

    References:
      Oh et al. 2021, https://arxiv.org/abs/2008.08882 (BOIL).
    """
    if head is None:
        raise ValueError("BOIL adapts its encoder by the gradient that a head passes back, got head=None")
    check_positive("BOIL", inner_lr=inner_lr)
    net = network(encoder, way, output, head(way), what="BOIL")
    return fast_weights(
        net._replace(init=_init(net, "encoder", "BOIL")), lambda rule: {"learning_rate": inner_lr},
        inner_steps=inner_steps, test_steps=test_steps, order=order, remat=remat, mixed=mixed, test_norm=test_norm,
        adapts=("encoder",),
    )  # fmt: skip


def _init(net: Network, room: str, what: str) -> Callable[..., tuple[Any, Any]]:
    """``net.init``, which raises ValueError where ``room``, the only part that adapts, has no parameters."""

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        params, state = net.init(key, episode, encoder_params)
        if not jax.tree.leaves(params[room]):
            raise ValueError(f"{what} adapts the {room} only, and this {room} has no parameters")
        return params, state

    return init
