"""How far a representation moved: linear CKA of each layer, over adaptation and over meta-training."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from metarep_jax.types import Context, Episode, MetaLearner

HEAD = "head"  # the name of the logits among the layers


@jax.jit
def linear_cka(x: Float[Array, "n p"], y: Float[Array, "n q"]) -> Float[Array, ""]:
    """Linear centred kernel alignment of two representations of the same ``n`` examples, in [0, 1].

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) with centred columns: 1 where one is a rotation and scaling of the other; unchanged by
    either's rotation, scale and shift. A representation that does not vary at all gives 0. The Gram matrices are
    [n, n], so that wide layers cost no more than narrow ones.

    References:
      Kornblith et al. 2019, https://arxiv.org/abs/1905.00414, section 3.
    """
    one, two = _centred_gram(x), _centred_gram(y)
    norms = jnp.sqrt(jnp.sum(one**2) * jnp.sum(two**2))
    return jnp.where(norms > 0, jnp.sum(one * two) / jnp.where(norms > 0, norms, 1.0), 0.0)


def layer_outputs(
    encoder: nn.Module, variables: Any, inputs: Shaped[Array, "n ..."], running: bool = False
) -> dict[str, Float[Array, "n dim"]]:
    """Outputs of the encoder's blocks, in order, each flattened to [n, dim].

    Args:
      encoder: a module of ``metarep_jax.encoders``, which keep the output of each block for this.
      variables: its Linen variables.
      inputs: [n, ...].
      running: normalise with running averages instead of these inputs' statistics.
    """
    layers = _intermediates(encoder, variables, inputs, running)
    found = {name: value.reshape(len(inputs), -1) for name, value in layers.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: (len(name), name))}


def adaptation_similarity(
    learner: MetaLearner,
    encoder: nn.Module,
    params: Any,
    state: Any,
    episode: Episode,
    key: Array,
    ctx: Context | None = None,
) -> dict[str, Float[Array, ""]]:
    """CKA of each layer before and after adapting to the support set, on the queries; the logits as layer "head".

    High in the body and low in the head means that features are reused; low in the body means that they are learned
    anew for each task. A head that starts at zero has no answer before, and counts as 0.

    Args:
      learner, params, state: of a gradient-based learner, whose ``task`` holds ``"fast"`` weights.
      encoder: its encoder.
      episode: one task.
      key: for ``adapt``.
      ctx: None means the learner's ``test_context``.

    Raises:
      ValueError: for a learner that does not adapt weights.

    References:
      Raghu et al. 2020, https://arxiv.org/abs/1909.09157, section 4.
    """
    ctx = learner.test_context if ctx is None else ctx
    task = learner.adapt(params, state, episode.support, key, ctx)
    if not isinstance(task, dict) or "fast" not in task:
        raise ValueError("this learner adapts no weights, so its layers are the same before and after")
    fast, inputs = task["fast"], episode.query.inputs

    def layers(weights: Any) -> dict[str, Array]:
        variables = {"params": weights.get("encoder", params["encoder"]), "batch_stats": state["encoder"]}
        return layer_outputs(encoder, variables, inputs, ctx.norm == "running")

    before, after = layers(params), layers(fast)
    found = {name: linear_cka(before[name], after[name]) for name in before}
    start = {**task, "fast": {part: params[part] for part in fast}}
    one, two = (learner.predict(params, state, at, inputs, ctx) for at in (start, task))
    return found | {HEAD: linear_cka(one["logits"], two["logits"])} if "logits" in one else found


def variables_similarity(
    encoder: nn.Module, before: Any, after: Any, inputs: Shaped[Array, "n ..."]
) -> dict[str, Float[Array, ""]]:
    """CKA of each layer under two sets of the encoder's variables, such as before and after meta-training."""
    one, two = (layer_outputs(encoder, variables, inputs) for variables in (before, after))
    return {name: linear_cka(one[name], two[name]) for name in one}


@partial(jax.jit, static_argnames=("encoder", "running"))
def _intermediates(encoder: nn.Module, variables: Any, inputs: Array, running: bool) -> Any:
    return encoder.apply(variables, inputs, None, running, mutable=["intermediates", "batch_stats"])[1]["intermediates"]


def _centred_gram(x: Float[Array, "n p"]) -> Float[Array, "n n"]:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x - x.mean(0)
    x = x / jnp.maximum(jnp.abs(x).max(), jnp.finfo(x.dtype).tiny)  # CKA does not see it, and squares stay in range
    return jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
