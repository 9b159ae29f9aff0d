"""Relation Networks: a learned module, not a fixed distance, says how well a query goes with a class."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders import split_variables
from metarep_jax.losses import masked_mean
from metarep_jax.metalearn.base import check_labels, class_members, cross_entropy, seen_classes_only
from metarep_jax.metalearn.features import blank_features, encode_support, query_outputs
from metarep_jax.metalearn.settings import check_at_least, check_one_of
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode, Outputs

ScoreLoss = Literal["squared_error", "cross_entropy"]
LAST_HIDDEN = 8  # units before the score (section 3.3)


def relation(
    encoder: nn.Module,
    *,
    way: int,
    hidden: int = 64,
    score_loss: ScoreLoss = "squared_error",
    test_norm: NormMode = "running",
) -> MetaLearner:
    """Learns features together with the module that compares them.

    A class is the sum of its support features; the relation module scores it joined to a query's, in [0, 1].

    The paper joins feature maps, and puts two convolutions with batch norm and pooling before its dense layers of 8
    and 1 units. Encoders here return flat features, so a dense layer of ``hidden`` units without norm stands in for
    the convolutions: it compares any position with any other, but learns nothing that holds at all of them.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: classes of an episode.
      hidden: units of the relation module's first layer.
      score_loss: "squared_error" of the scores to 1 for the query's class and 0 for the others, as in the paper, or
        "cross_entropy" over the logits.
      test_norm: whose statistics batch norm uses for the queries at test.

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "rule"}``, the rule being the relation module, whose ``task`` is the
      class embeddings [way, dim]. ``outputs["score"]`` [q, way] is the sigmoid of ``outputs["logits"]``.

    Raises:
      ValueError: for an unknown ``score_loss``, or ``hidden`` below 1; by ``init`` for regression.

    References:
      Sung et al. 2018, https://arxiv.org/abs/1711.06025, eq. 1 and 2, sections 3.2 and 3.3.
    """
    check_at_least(1, "Relation Networks", hidden=hidden)
    check_one_of(ScoreLoss, "Relation Networks", score_loss=score_loss)
    check_one_of(NormMode, "Relation Networks", test_norm=test_norm)
    losses = {"squared_error": squared_error_to_match, "cross_entropy": cross_entropy}
    module = RelationModule(hidden)

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        check_labels(episode, "class numbers", "Relation Networks")
        encoder_key, rule_key = jax.random.split(key)
        body = encoder_params or encoder.init(encoder_key, episode.support.inputs)
        features = blank_features(encoder, body, episode.support.inputs)
        params, state = split_variables({"encoder": body})
        return {**params, "rule": module.init(rule_key, features, features)["params"]}, state

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        features = encode_support(encoder, params, state, support, ctx)
        member = class_members(support.label, way, support.mask, features.dtype)
        return {"classes": member.T @ features, "support": support}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        layers, encoder_state = query_outputs(encoder, params, state, task["support"], inputs, ctx, mask)
        features = layers["features"]
        relations: Any = module.apply({"params": params["rule"]}, task["classes"], features)
        logits = seen_classes_only(relations, task["support"])
        found = {"logits": logits, "score": jax.nn.sigmoid(logits), **layers}
        return {**found, "state": {**state, "encoder": encoder_state}}

    return MetaLearner(
        init=init,
        adapt=adapt,
        predict=predict,
        loss=losses[score_loss],
        train_context=Context(train=True, norm="transductive"),
        test_context=Context(norm=test_norm),
        shares_encoder=True,
    )


class RelationModule(nn.Module):
    """The relation before its sigmoid, of every query to every class: [way, dim] and [q, dim] to [q, way]."""

    hidden: int

    @nn.compact
    def __call__(self, classes: Float[Array, "way dim"], queries: Float[Array, "q dim"]) -> Float[Array, "q way"]:
        shape = (len(queries), *classes.shape)
        joined = jnp.concatenate([jnp.broadcast_to(classes, shape), jnp.broadcast_to(queries[:, None], shape)], axis=-1)
        rows = nn.relu(nn.Dense(self.hidden)(joined))
        rows = nn.relu(nn.Dense(LAST_HIDDEN)(rows))
        return nn.Dense(1)(rows)[..., 0]


def squared_error_to_match(outputs: Outputs, query: Examples) -> Float[Array, ""]:
    """Mean over queries of Σ_class (score − 1 or 0)² (eq. 2); a class without support has score 0 and adds nothing."""
    score = outputs["score"]
    match = class_members(query.label, score.shape[-1], dtype=score.dtype)
    return masked_mean(jnp.sum((score - match) ** 2, axis=-1), query.mask)
