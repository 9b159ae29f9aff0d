"""Prototypical Networks: a class is the mean of its support features; a query belongs to the nearest."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.features import unit_rows
from metarep_jax.metalearn.base import check_labels, class_members, seen_classes_only
from metarep_jax.metalearn.features import encode_support, query_outputs
from metarep_jax.metalearn.settings import check_one_of, check_positive
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode

Distance = Literal["euclidean", "cosine"]
FULL = lax.Precision.HIGHEST


def prototypical(
    encoder: nn.Module,
    *,
    way: int,
    distance: Distance = "euclidean",
    temperature: float | None = None,
    test_norm: NormMode = "running",
) -> MetaLearner:
    """Learns features in which the mean of a class's few examples is a good classifier.

    With an encoder that was trained some other way and never meta-trained, this is the nearest-prototype baseline.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: classes of an episode.
      distance: "euclidean" (squared, as in the paper) or "cosine".
      temperature: divides the negative distances; None: 1 for "euclidean", 0.1 for "cosine".
      test_norm: whose statistics batch norm uses for the queries at test.

    Returns:
      A ``MetaLearner`` whose ``task`` is the prototypes [way, dim] and what the norm modes need.

    Raises:
      ValueError: for an unknown distance, or a temperature that is not positive; by ``init`` for regression.

    References:
      Snell et al., Prototypical Networks for Few-shot Learning, eq. 1 and 2 (https://arxiv.org/abs/1703.05175).
    """
    check_positive("Prototypical Networks", temperature=temperature)
    check_one_of(Distance, "Prototypical Networks", distance=distance)
    check_one_of(NormMode, "Prototypical Networks", test_norm=test_norm)
    scale = temperature or default_temperature(distance)

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        check_labels(episode, "class numbers", "Prototypical Networks")
        return split_variables({"encoder": encoder_params or encoder.init(key, episode.support.inputs)})

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        features = encode_support(encoder, params, state, support, ctx)
        return {"prototypes": class_means(features, support.label, way, support.mask), "support": support}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        layers, encoder_state = query_outputs(encoder, params, state, task["support"], inputs, ctx, mask)
        features = layers["features"]
        logits = seen_classes_only(-distances(features, task["prototypes"], distance) / scale, task["support"])
        return {"logits": logits, **layers, "state": {**state, "encoder": encoder_state}}

    return MetaLearner(
        init=init,
        adapt=adapt,
        predict=predict,
        train_context=Context(train=True, norm="transductive"),
        test_context=Context(norm=test_norm),
        shares_encoder=True,
    )


def class_means(
    features: Float[Array, "n dim"], label: Int[Array, " n"], way: int, mask: Array | None = None
) -> Float[Array, "way dim"]:
    """The mean feature of each class over the rows that ``mask`` keeps, in full precision."""
    member = class_members(label, way, mask, features.dtype)
    return jnp.matmul(member.T, features, precision=FULL) / jnp.maximum(member.sum(0), 1)[:, None]


def distances(
    features: Float[Array, "n dim"], prototypes: Float[Array, "way dim"], distance: Distance = "euclidean"
) -> Float[Array, "n way"]:
    """Squared Euclidean distance, or one minus the cosine, of every feature to every prototype.

    In full precision on every device: a distance is a small difference of large squares, from which no product of
    rounded factors, as accelerators compute it by default, must be taken.
    """
    if distance == "cosine":
        return 1 - jnp.matmul(unit_rows(features), unit_rows(prototypes).T, precision=FULL)
    if distance != "euclidean":
        raise ValueError(f"unknown distance {distance!r}; there are: euclidean, cosine")
    squares = jnp.sum(features**2, -1)[:, None] + jnp.sum(prototypes**2, -1)[None]
    return squares - 2 * jnp.matmul(features, prototypes.T, precision=FULL)


def default_temperature(distance: Distance) -> float:
    """1 for "euclidean"; 0.1 for "cosine".

    Cosines lie within ±1: undivided, the right class of 5 reaches a probability of at most 0.65, of 20 at most 0.28.
    """
    return {"euclidean": 1.0, "cosine": 0.1}[distance]
