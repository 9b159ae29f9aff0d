"""Features of an episode's support and queries, for learners that do not change the encoder per task."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders import apply_with_layers
from metarep_jax.encoders.features import at_least_float32
from metarep_jax.metalearn.norm_modes import query_forward
from metarep_jax.types import Context, Examples, Outputs


def encode_support(
    encoder: nn.Module, params: Any, state: Any, support: Examples, ctx: Context
) -> Float[Array, "n dim"]:
    """Support features [n, dim]: with the support set's own statistics, or running ones if ``ctx.norm`` says so."""
    outputs, _ = _encode(encoder, params, state)(support.inputs, support.mask, ctx.norm == "running")
    return outputs["features"]


def encode_queries(
    encoder: nn.Module, params: Any, state: Any, support: Examples, inputs: Array, ctx: Context, mask: Any = None
) -> tuple[Float[Array, "n dim"], Any]:
    """Query features [n, dim] under ``ctx.norm``, and the encoder's statistics, moved if ``ctx.train``.

    ``mask`` [n]: which queries enter batch statistics; None: all.
    """
    outputs, moved = query_outputs(encoder, params, state, support, inputs, ctx, mask)
    return outputs["features"], moved


def query_outputs(
    encoder: nn.Module, params: Any, state: Any, support: Examples, inputs: Array, ctx: Context, mask: Any = None
) -> tuple[Outputs, Any]:
    """As ``encode_queries``, with the ``features`` and the layers that ``ctx.layers`` asks for, by their names."""
    forward = _encode(encoder, params, state, ctx.layers)
    if ctx.train and ctx.norm == "transductive":
        return forward(inputs, mask, False)
    outputs = query_forward(
        lambda rows, mask, running: forward(rows, mask, running)[0],
        support.inputs, inputs, ctx.norm, support_mask=support.mask, query_mask=mask,
    )  # fmt: skip
    return outputs, state["encoder"]


def blank_features(encoder: nn.Module, variables: Any, inputs: Array) -> Float[Array, "n dim"]:
    """Zeros where the encoder's features of ``inputs`` would stand, to initialise what takes them."""
    features = jax.eval_shape(encoder.apply, variables, inputs)
    return at_least_float32(jnp.zeros(features.shape, features.dtype))


def _encode(encoder: nn.Module, params: Any, state: Any, layers: tuple[str, ...] = ()) -> Any:
    variables = {"params": params["encoder"], "batch_stats": state["encoder"]}

    def forward(inputs: Array, mask: Array | None, running: bool) -> tuple[Outputs, Any]:
        features, named, moved = apply_with_layers(encoder, variables, inputs, mask, running, layers)
        # Heads solve linear systems and subtract like from like.
        return {"features": at_least_float32(features), **named}, moved

    return forward
