"""Models that learn on batches: an encoder alone, or with a linear head over a fixed set of classes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.encoders import apply_with_layers, split_variables
from metarep_jax.encoders.features import at_least_float32
from metarep_jax.types import Outputs


class Student(NamedTuple):
    """``init(key, inputs, encoder_params=None) -> params, state``;
    ``outputs(params, state, inputs, mask=None, train=False, layers=()) -> outputs, state``, where outputs are
    ``features``, ``logits`` where there is a head, and those ``layers`` of the encoder."""

    init: Callable[..., tuple[Any, Any]]
    outputs: Callable[..., tuple[Outputs, Any]]


def encoder_alone(encoder: nn.Module) -> Student:
    """A student without a head: what it learns are features.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
    """

    def init(key: Array, inputs: Array, encoder_params: Any = None) -> tuple[Any, Any]:
        return split_variables({"encoder": encoder_params or encoder.init(key, inputs)})

    def outputs(
        params: Any,
        state: Any,
        inputs: Array,
        mask: Array | None = None,
        train: bool = False,
        layers: tuple[str, ...] = (),
    ) -> tuple[Outputs, Any]:
        variables = {"params": params["encoder"], "batch_stats": state["encoder"]}
        features, named, moved = apply_with_layers(encoder, variables, inputs, mask, not train, layers)
        return {"features": features, **named}, {**state, "encoder": moved}

    return Student(init, outputs)


def classifier(encoder: nn.Module, classes: int, *, frozen: bool = False) -> Student:
    """A classifier of ``classes`` classes over ``encoder``, whose head computes in the encoder's number format.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      classes: number of classes, at least 2.
      frozen: *feature extraction*: the encoder stands in ``state``, so that neither gradients nor weight decay reach
        it, and normalises with its running averages. Else *fine-tuning*: everything learns.

    Raises:
      ValueError: for fewer than two classes.
    """
    if classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {classes}")
    head = nn.Dense(classes, dtype=getattr(encoder, "dtype", None))

    def init(key: Array, inputs: Array, encoder_params: Any = None) -> tuple[Any, Any]:
        encoder_key, head_key = jax.random.split(key)
        variables = encoder_params or encoder.init(encoder_key, inputs)
        features = encoder.apply(variables, inputs, running=True)
        params, state = split_variables({"encoder": variables, "head": head.init(head_key, features)})
        if frozen:
            return {"head": params["head"]}, {"encoder": state["encoder"], "frozen": params["encoder"]}
        return params, {"encoder": state["encoder"]}

    def outputs(
        params: Any,
        state: Any,
        inputs: Array,
        mask: Array | None = None,
        train: bool = False,
        layers: tuple[str, ...] = (),
    ) -> tuple[Outputs, Any]:
        weights = jax.lax.stop_gradient(state["frozen"]) if frozen else params["encoder"]
        variables = {"params": weights, "batch_stats": state["encoder"]}
        features, named, moved = apply_with_layers(encoder, variables, inputs, mask, not train or frozen, layers)
        logits: Any = head.apply({"params": params["head"]}, features)
        return {"logits": at_least_float32(logits), "features": features, **named}, {**state, "encoder": moved}

    return Student(init, outputs)


def classifier_encoder(params: Any, state: Any) -> Any:
    """The encoder's Linen variables of a classifier, frozen or not."""
    return {"params": state.get("frozen", params.get("encoder")), "batch_stats": state["encoder"]}
