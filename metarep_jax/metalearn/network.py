"""An encoder with a linear head, as learners that adapt weights by gradients use it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.encoders import split_variables
from metarep_jax.metalearn.base import check_labels, cross_entropy, seen_classes_only, squared_error
from metarep_jax.metalearn.features import blank_features, encode_support, query_outputs
from metarep_jax.metalearn.settings import check_at_least, check_one_of
from metarep_jax.types import Context, Episode, Examples, NormMode, Outputs

Output = Literal["logits", "mean"]  # classification with cross-entropy, or regression with squared error


class Network(NamedTuple):
    """The functions of an encoder and its head; ``weights`` is ``{"encoder", "head"}``, adapted or not."""

    init: Callable[..., tuple[Any, Any]]  # (key, episode, encoder_params=None) -> params, state
    support: Callable[[Any, Any, Examples, Context], Outputs]  # (weights, state, support, ctx) -> outputs
    query: Callable[..., Outputs]  # (weights, state, support, inputs, ctx, mask=None) -> outputs, new state in training
    loss: Callable[[Outputs, Examples], Array]
    outputs: Callable[[Any, Array], Outputs]  # (weights, features) -> outputs: the head alone
    what: str  # names the learner in errors


def network(
    encoder: nn.Module, way: int, output: Output = "logits", head: nn.Module | None = None, what: str = "this learner"
) -> Network:
    """``encoder`` and ``head``, by default a linear layer of ``way`` outputs that starts at zero.

    Classes are numbered anew in every episode, so no head is right before the support set was seen, and a random one
    only adds noise to the inner gradient that the encoder then has to undo (Kao et al. 2022,
    https://arxiv.org/abs/2106.15367). The encoder learns from the first step on: the adapted head is not zero.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: outputs: classes of an episode, or target dimensions.
      output: "logits" with cross-entropy, or "mean" with squared error.
      head: features [n, dim] -> [n, way].
      what: names the learner in errors.

    Raises:
      ValueError: for a ``way`` below 1 or an unknown ``output``; by ``init``, for an episode whose labels ``output`` is
        not trained on.
    """
    check_one_of(Output, what, output=output)
    if way < 1:
        raise ValueError(f"{what} needs at least 1 class (or target dimension), got way={way}")
    head = zero_head(way) if head is None else head
    loss = {"logits": cross_entropy, "mean": squared_error}[output]

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        check_labels(episode, "class numbers" if output == "logits" else "targets", what)
        encoder_key, head_key = jax.random.split(key)
        inputs = episode.support.inputs
        body = encoder_params or encoder.init(encoder_key, inputs)
        return split_variables({"encoder": body, "head": head.init(head_key, blank_features(encoder, body, inputs))})

    def outputs_of(weights: Any, features: Array) -> Outputs:
        return {output: head.apply({"params": weights["head"]}, features), "features": features}

    def support_outputs(weights: Any, state: Any, support: Examples, ctx: Context) -> Outputs:
        return outputs_of(weights, encode_support(encoder, weights, state, support, ctx))

    def answers(weights: Any, state: Any, support: Examples, inputs: Array, ctx: Context, mask: Any = None) -> Outputs:
        layers, moved = query_outputs(encoder, weights, state, support, inputs, ctx, mask)
        outputs = {**layers, **outputs_of(weights, layers["features"])}
        if output == "logits":
            outputs["logits"] = seen_classes_only(outputs["logits"], support)
        return {**outputs, "state": {**state, "encoder": moved}} if ctx.train else outputs

    return Network(init, support_outputs, answers, loss, outputs_of, what)


def zero_head(way: int) -> nn.Module:
    """A linear head of ``way`` outputs that starts at zero; ``network`` says why."""
    return nn.Dense(way, kernel_init=nn.initializers.zeros)


def check_inner_loop(
    learner: str, *, inner_steps: int, test_steps: int, order: int = 2, test_norm: NormMode = "transductive"
) -> None:
    """Raises ValueError, naming the ``learner``, for settings of an inner loop that cannot be meant."""
    check_at_least(0, learner, inner_steps=inner_steps, test_steps=test_steps)
    check_one_of(Literal[1, 2], learner, order=order)
    check_one_of(NormMode, learner, test_norm=test_norm)


def inner_steps_of(ctx: Context, training: int, test: int) -> int:
    """How many inner steps ``ctx`` asks for: its own number, or the learner's for training or for test."""
    if ctx.inner_steps is not None:
        return ctx.inner_steps
    return training if ctx.train else test
