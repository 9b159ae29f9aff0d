"""CAVIA: a task is a small context vector, found by gradient descent; all weights are shared."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders.layers import as_image_float
from metarep_jax.metalearn.inner import inner_loop
from metarep_jax.metalearn.network import Output, check_inner_loop, inner_steps_of, network
from metarep_jax.metalearn.settings import check_one_of, check_positive
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode, Outputs


def cavia(
    encoder: nn.Module,
    *,
    way: int,
    context: int | None = None,
    context_at: Literal["input", "features"] | None = None,
    inner_lr: float = 1.0,
    inner_steps: int = 2,
    test_steps: int = 2,
    order: Literal[1, 2] = 2,
    remat: bool = False,
    mixed: bool = False,
    test_norm: NormMode = "transductive",
    output: Output = "logits",
) -> MetaLearner:
    """Learns weights θ so that a few gradient steps on a context φ, which starts at zero, suit the queries.

    φ steers the network either as more inputs, [x, φ], or by scaling and shifting its features (FiLM):
    features × (1 + φW) + φV, which the head then reads. The paper does the latter behind an inner convolution; here it
    is behind the encoder, whose weights then serve unchanged, and which encodes the support set once a task. It must
    come after the last batch norm, which subtracts a constant that was added before it.

    Neither the head nor W and V start at zero: φ's gradient passes through them.

    Args:
      encoder: a module of ``metarep_jax.encoders``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      context: the length of φ; None means the paper's: 5 at the input, 100 at the features.
      context_at: "input" or "features"; None means the paper's: "input" for regression, "features" for classification.
      inner_lr: α; that of φ's gradient, whose scale θ learns, so that 1 serves most tasks.
      inner_steps, test_steps: steps in training and at test. The paper takes 2 in classification, 1 in regression.
      order: 1 drops second derivatives (first-order MAML), 2 differentiates through the inner gradients.
      remat: recompute inner steps in the backward pass, in nested groups, to save memory (``inner.inner_loop``).
      mixed: differentiate through inner gradients forward over reverse, to save memory (``inner.inner_loop``).
      test_norm: whose statistics batch norm uses for the queries at test; training uses those of the query batch.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head"}`` whose ``task`` is φ [context] and the support set.

    Raises:
      ValueError: for a context below 1 or at an unknown place, a rate that is not positive, a negative number of steps,
        an order other than 1 and 2, and at the input of an encoder with batch norm or, by
        ``init``, of an earlier stage's encoder.

    References:
      Zintgraf et al. 2019, https://arxiv.org/abs/1810.03642, algorithm 1, eq. 4 (inputs);
      "conditioning on context parameters" (FiLM).
    """
    check_positive("CAVIA", inner_lr=inner_lr)
    check_inner_loop("CAVIA", inner_steps=inner_steps, test_steps=test_steps, order=order, test_norm=test_norm)
    check_one_of(Output, "CAVIA", output=output)
    place = context_at or {"mean": "input", "logits": "features"}[output]
    if place not in ("input", "features"):
        raise ValueError(f"CAVIA: unknown context_at {place!r}; there are: input, features")
    if place == "input" and getattr(encoder, "norm", "none") == "batch":
        raise ValueError(
            "CAVIA: a context at the input is the same for all examples, and batch norm subtracts it again. "
            'Take an encoder with another norm, or context_at="features"'
        )
    size = {"input": 5, "features": 100}[place] if context is None else context
    if size < 1:
        raise ValueError(f"CAVIA needs a context of length 1 or more, got context={context}")
    net = network(encoder, way, output, nn.Dense(way) if place == "input" else Film(way, size), what="CAVIA")

    def given(weights: Any, inputs: Array, phi: Array) -> tuple[Any, Array]:
        """The weights and inputs of the network under the context ``phi``."""
        if place == "input":
            return weights, append(inputs, phi)
        return {**weights, "head": {**weights["head"], "context": phi}}, inputs

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        if place == "input":
            if encoder_params is not None:
                raise ValueError(
                    "CAVIA: a context at the input makes the first layer wider, so that an earlier stage's encoder "
                    'does not fit; take context_at="features"'
                )
            wide = append(episode.support.inputs, jnp.zeros(size))
            episode = episode._replace(support=episode.support._replace(inputs=wide))
        params, state = net.init(key, episode, encoder_params)
        head = {name: leaf for name, leaf in params["head"].items() if name != "context"}  # φ is not learned
        return {**params, "head": head}, state

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        zero = jnp.zeros(size)

        def outputs(phi: Array) -> Outputs:
            weights, inputs = given(params, support.inputs, phi)
            return net.support(weights, state, support._replace(inputs=inputs), ctx)

        features = outputs(zero)["features"] if place == "features" else None  # the same in every step

        def support_loss(phi: Array, step: Any) -> Array:
            del step
            if features is None:
                return net.loss(outputs(phi), support)
            weights, _ = given(params, support.inputs, phi)
            return net.loss(net.outputs(weights, features), support)

        phi, losses = inner_loop(
            support_loss, zero, steps=inner_steps_of(ctx, inner_steps, test_steps), learning_rate=inner_lr,
            order=ctx.order, remat=remat, mixed=mixed,
        )  # fmt: skip
        return {"context": phi, "support": support, "support_loss": losses}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> Outputs:
        weights, queries = given(params, inputs, task["context"])
        _, rows = given(params, task["support"].inputs, task["context"])
        return net.query(weights, state, task["support"]._replace(inputs=rows), queries, ctx, mask)

    return MetaLearner(
        init=init,
        adapt=adapt,
        predict=predict,
        loss=net.loss,
        train_context=Context(train=True, order=order),
        test_context=Context(norm=test_norm),
        shares_encoder=place == "features",  # beside a context as input, features are the task's
    )


def append(inputs: Array, phi: Float[Array, " context"]) -> Array:
    """[n, ..., c] -> [n, ..., c + context]: the context beside every input, or as channels of every pixel."""
    inputs = as_image_float(inputs, dtype=phi.dtype)
    return jnp.concatenate([inputs, jnp.broadcast_to(phi, (*inputs.shape[:-1], phi.size))], -1)


class Film(nn.Module):
    """Features scaled and shifted by the context, which is a parameter here, and a linear layer: [n, dim] -> [n, way].

    Source: Perez et al. 2018, https://arxiv.org/abs/1709.07871, section 2.
    """

    way: int
    context: int

    @nn.compact
    def __call__(self, features: Float[Array, "n dim"]) -> Float[Array, "n way"]:
        phi = self.param("context", nn.initializers.zeros, (self.context,))
        scale, shift = jnp.split(nn.Dense(2 * features.shape[-1], use_bias=False, name="film")(phi), 2)
        return nn.Dense(self.way, name="linear")(features * (1 + scale) + shift)
