"""Matching Networks: a query's label is an average of the support labels, weighted by attention."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from metarep_jax.encoders import split_variables
from metarep_jax.metalearn.base import UNREACHABLE, check_labels, class_members, seen_classes_only
from metarep_jax.metalearn.features import blank_features, encode_support, query_outputs
from metarep_jax.metalearn.prototypical import Distance, default_temperature, distances
from metarep_jax.metalearn.settings import check_one_of, check_positive
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode


def matching(
    encoder: nn.Module,
    *,
    way: int,
    distance: Distance = "cosine",
    temperature: float | None = None,
    full_context: bool = False,
    reads: int = 5,
    test_norm: NormMode = "running",
) -> MetaLearner:
    """Learns features in which attention to a few labelled examples is a good classifier.

    ŷ = Σ_i a(x̂, x_i) y_i, where a is a softmax over the support set of negative distances. At one shot, and without
    full context, these are Prototypical Networks.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: classes of an episode.
      distance: "cosine", as in the paper, or "euclidean" (squared).
      temperature: divides the distances; None: 0.1 for "cosine", 1 for "euclidean". The paper has none, which is 1.
      full_context: embed each support example by the whole support set (g, a bidirectional LSTM) and each query by
        attention to it (f, an LSTM). g reads the support examples in their order, so that the order then matters.
      reads: K, steps of the queries' LSTM. The paper names no number.
      test_norm: whose statistics batch norm uses for the queries at test.

    Returns:
      A ``MetaLearner`` whose ``task`` is the embedded support set [n, dim] with its labels, and whose logits are the
      logarithms of ŷ. With full context, params have a ``"rule"``: the two LSTMs.

    Raises:
      ValueError: for ``reads`` below 1, an unknown distance, or a temperature that is not positive; by ``init`` for
        regression.

    References:
      Vinyals et al. 2016, https://arxiv.org/abs/1606.04080, section 2.1 and appendix A.
    """
    if reads < 1:
        raise ValueError(f"Matching Networks read the support set at least once, got reads={reads}")
    check_positive("Matching Networks", temperature=temperature)
    check_one_of(Distance, "Matching Networks", distance=distance)
    check_one_of(NormMode, "Matching Networks", test_norm=test_norm)
    scale = temperature or default_temperature(distance)
    support_context, query_context = SupportContext(), QueryContext(reads)

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        check_labels(episode, "class numbers", "Matching Networks")
        keys = jax.random.split(key, 3)
        body = encoder_params or encoder.init(keys[0], episode.support.inputs)
        params, state = split_variables({"encoder": body})
        if full_context:
            rows = blank_features(encoder, body, episode.support.inputs)
            count = jnp.ones(len(rows), bool)
            g = support_context.init(keys[1], rows, jnp.int32(len(rows)))["params"]
            f = query_context.init(keys[2], rows, rows, count)["params"]
            params["rule"] = {"support": g, "query": f}
        return params, state

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        features = encode_support(encoder, params, state, support, ctx)
        if full_context:
            features, support = _padding_last(features, support)
            features = support_context.apply({"params": params["rule"]["support"]}, features, _counts(support).sum())
        return {"embedded": features, "support": support}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        embedded, support = task["embedded"], task["support"]
        layers, encoder_state = query_outputs(encoder, params, state, support, inputs, ctx, mask)
        features = layers["features"]
        queries: Any = features
        if full_context:
            rule = {"params": params["rule"]["query"]}
            queries = query_context.apply(rule, features, embedded, _counts(support))
        likeness = jnp.where(_counts(support), -distances(queries, embedded, distance) / scale, UNREACHABLE)
        logits = label_distribution(jax.nn.log_softmax(likeness), class_members(support.label, way, support.mask))
        logits = seen_classes_only(logits, support)
        return {"logits": logits, **layers, "state": {**state, "encoder": encoder_state}}

    return MetaLearner(
        init=init,
        adapt=adapt,
        predict=predict,
        train_context=Context(train=True, norm="transductive"),
        test_context=Context(norm=test_norm),
        shares_encoder=True,
    )


def label_distribution(
    log_attention: Float[Array, "queries n"], member: Float[Array, "n way"]
) -> Float[Array, "queries way"]:
    """log Σ_i a_i y_i: the logarithm of the attention on each class's members; UNREACHABLE for a class of none."""
    on_class = jnp.where(member > 0, log_attention[..., None], UNREACHABLE)
    return jax.nn.logsumexp(on_class, axis=1)


class SupportContext(nn.Module):
    """g: each support feature plus what an LSTM said of it from either side; [n, dim] to [n, dim] (appendix A.2).

    Only the first ``count`` rows are read; what is returned for the others means nothing.
    """

    @nn.compact
    def __call__(self, features: Float[Array, "n dim"], count: Int[Array, ""]) -> Float[Array, "n dim"]:
        cell = partial(nn.LSTMCell, features.shape[-1], param_dtype=features.dtype)
        sides = nn.Bidirectional(nn.RNN(cell()), nn.RNN(cell()), merge_fn=jnp.add)
        return features + sides(features[None], seq_lengths=count[None])[0]


class QueryContext(nn.Module):
    """f: an LSTM that reads the embedded support set by attention, ``reads`` times (appendix A.1, eq. 3 to 6)."""

    reads: int

    @nn.compact
    def __call__(
        self, features: Float[Array, "q dim"], embedded: Float[Array, "n dim"], counts: Array
    ) -> Float[Array, "q dim"]:
        cell = nn.LSTMCell(features.shape[-1], param_dtype=features.dtype)
        hidden = memory = jnp.zeros_like(features)
        for _ in range(self.reads):
            attention = jax.nn.softmax(jnp.where(counts, hidden @ embedded.T, UNREACHABLE))
            # The paper joins what was read to h; to the gates, which are linear in both, it is the same joined to x.
            inputs = jnp.concatenate([features, attention @ embedded], -1)
            (memory, output), _ = cell((memory, hidden), inputs)
            hidden = output + features
        return hidden


def _counts(support: Examples) -> Array:
    return jnp.ones(support.label.shape, bool) if support.mask is None else support.mask


def _padding_last(features: Array, support: Examples) -> tuple[Array, Examples]:
    if support.mask is None:
        return features, support
    order = jnp.argsort(~support.mask, stable=True)
    return features[order], jax.tree.map(lambda leaf: leaf[order], support)
