"""What closed-form learners share: a linear head on the encoder's features that each task solves for itself."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders import split_variables
from metarep_jax.metalearn.base import check_labels, class_members, cross_entropy, seen_classes_only, squared_error
from metarep_jax.metalearn.features import encode_support, query_outputs
from metarep_jax.metalearn.network import Output
from metarep_jax.metalearn.settings import check_one_of
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode

# (rule, rows [n, dim], targets [n, way]) -> weights [dim, way]. Padding is rows of zeros, in both.
Fit = Callable[[Any, Float[Array, "n dim"], Float[Array, "n way"]], Float[Array, "dim way"]]


def linear_head(
    encoder: nn.Module,
    *,
    way: int,
    fit: Fit,
    rule: Mapping[str, float],
    what: str,
    output: Output = "logits",
    test_norm: NormMode = "running",
) -> MetaLearner:
    """Outputs scale · (features @ W) + bias, where ``fit`` finds W for each task; the encoder is shared by all tasks.

    There is no constant feature beside the encoder's: an all-zero row then says nothing about W, which is how padding
    is left out, whatever ``fit`` minimises.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: classes of an episode, or target dimensions.
      fit: ``(rule, rows, targets) -> weights``, differentiable. Targets are one 1 a row, or regression targets.
      rule: first values of the learned numbers, ``params["rule"]``: "scale", perhaps "bias", and what ``fit`` takes.
      what: names the learner in errors.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).
      test_norm: whose statistics batch norm uses for the queries at test.

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "rule"}`` whose ``task`` is the weights [dim, way].

    Raises:
      ValueError: for an unknown ``output`` or norm mode; by ``init``, for labels of the other kind.
    """
    check_one_of(Output, what, output=output)
    check_one_of(NormMode, what, test_norm=test_norm)

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        check_labels(episode, "class numbers" if output == "logits" else "targets", what)
        params, state = split_variables({"encoder": encoder_params or encoder.init(key, episode.support.inputs)})
        return {**params, "rule": jax.tree.map(jnp.float32, dict(rule))}, state

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        rows, targets = encode_support(encoder, params, state, support, ctx), support.label
        if output == "logits":
            targets = class_members(targets, way, support.mask, rows.dtype)
        if support.mask is not None:
            rows, targets = (jnp.where(support.mask[:, None], part, 0) for part in (rows, targets))
        return {"weights": fit(params["rule"], rows, targets), "support": support}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        layers, encoder_state = query_outputs(encoder, params, state, task["support"], inputs, ctx, mask)
        features = layers["features"]
        found = params["rule"]["scale"] * (features @ task["weights"]) + params["rule"].get("bias", 0.0)
        found = seen_classes_only(found, task["support"]) if output == "logits" else found
        return {output: found, **layers, "state": {**state, "encoder": encoder_state}}

    return MetaLearner(
        init=init,
        adapt=adapt,
        predict=predict,
        loss={"logits": cross_entropy, "mean": squared_error}[output],
        train_context=Context(train=True, norm="transductive"),
        test_context=Context(norm=test_norm),
        shares_encoder=True,
    )
