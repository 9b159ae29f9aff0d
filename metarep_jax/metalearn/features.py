"""Features of an episode's support and queries, for learners that do not change the encoder per task."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.metalearn.norm_modes import query_forward
from metarep_jax.types import Context, Examples


def encode_support(
    encoder: nn.Module, params: Any, state: Any, support: Examples, ctx: Context
) -> Float[Array, "n dim"]:
    """Support features [n, dim]: with the support set's own statistics, or running ones if ``ctx.norm`` says so."""
    features, _ = _encode(encoder, params, state)(support.inputs, support.mask, ctx.norm == "running")
    return features


def encode_queries(
    encoder: nn.Module, params: Any, state: Any, support: Examples, inputs: Array, ctx: Context, mask: Any = None
) -> tuple[Float[Array, "n dim"], Any]:
    """Query features [n, dim] under ``ctx.norm``, and the encoder's statistics, moved if ``ctx.train``.

    ``mask`` [n]: which queries enter batch statistics; None: all.
    """
    forward = _encode(encoder, params, state)
    if ctx.train and ctx.norm == "transductive":
        return forward(inputs, mask, False)
    features = query_forward(
        lambda rows, mask, running: forward(rows, mask, running)[0],
        support.inputs, inputs, ctx.norm, support_mask=support.mask, query_mask=mask,
    )  # fmt: skip
    return features, state["encoder"]


def _encode(encoder: nn.Module, params: Any, state: Any) -> Any:
    variables = {"params": params["encoder"], "batch_stats": state["encoder"]}

    def forward(inputs: Array, mask: Array | None, running: bool) -> tuple[Array, Any]:
        features, moved = encoder.apply(variables, inputs, mask, running, mutable=["batch_stats"])
        return features, moved.get("batch_stats", {})

    return forward
