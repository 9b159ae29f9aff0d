"""Baselines without meta-learning: on each task's support set, train a head, or everything, or a new network."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders import encoder_variables, split_variables
from metarep_jax.encoders.features import Whitened, unit_rows
from metarep_jax.metalearn.descent import InnerOptimiser, descend, make_inner_optimiser
from metarep_jax.metalearn.network import Output, inner_steps_of, network, zero_head
from metarep_jax.metalearn.settings import check_at_least, check_one_of, check_positive
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode

What = Literal["head", "cosine_head", "all", "scratch"]


def finetune(
    encoder: nn.Module,
    *,
    way: int,
    what: What = "head",
    inner_lr: float = 0.01,
    test_steps: int = 100,
    test_batch: int = 4,
    inner_optimiser: InnerOptimiser = "momentum",
    weight_decay: float = 1e-3,
    temperature: float = 0.1,
    test_norm: NormMode = "running",
    output: Output = "logits",
) -> MetaLearner:
    """Trains on the support set by an ordinary optimiser: how good is a checkpoint that never learned to adapt?

    - "head", Baseline: a linear head, from zero, on frozen features.
    - "cosine_head", Baseline++: class vectors whose cosines with the frozen features, divided by ``temperature``, are
      the logits. They start in one random direction, so that no class is before another. (The authors' start apart, at
      temperature 1/2, and learn a factor for each class too.)
    - "all": the encoder and a linear head.
    - "scratch": the same from random weights, drawn for each task by its key; the checkpoint is not used.

    These learn nothing from many tasks, and training them is refused: pretrain an encoder and judge it by them.

    Args:
      encoder: a module of ``metarep_jax.encoders``, trained already.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      what: see above.
      inner_lr: rate of the optimiser. The authors' code dampens the momentum, which makes its steps ten times smaller.
      test_steps: minibatches; the authors make 100 passes over the support set.
      test_batch: rows of a minibatch. It is normalised by itself, or by running averages where ``test_norm`` says so.
      inner_optimiser: what takes the steps: a name of ``descent.INNER_OPTIMISERS``, or, in code, a function from the
        rate to an optax optimiser.
      weight_decay: strength of the decay, added to the gradient of all that is trained.
      temperature: divides the cosines of "cosine_head".
      test_norm: whose statistics batch norm uses for the queries. A network from scratch has no running averages; it
        uses those of the support set for them.
      output: "logits" with cross-entropy, or "mean" with squared error (regression; not with "cosine_head").

    Returns:
      A ``MetaLearner`` with params ``{"encoder"}`` whose ``task`` is what was trained and the support set.

    Raises:
      ValueError: for an unknown ``what`` or inner optimiser, cosines as regression, a rate or temperature that is not
        positive, a batch below 1, or a negative number of steps or decay.

    References:
      Chen et al. 2019, https://arxiv.org/abs/1904.04232, section 3.2 and 4.1;
      https://github.com/wyharveychen/CloserLookFewShot (the authors' code).
    """
    if what not in ("head", "cosine_head", "all", "scratch"):
        raise ValueError(f"fine-tuning: unknown what={what!r}; there are: head, cosine_head, all, scratch")
    if what == "cosine_head" and output != "logits":
        raise ValueError('fine-tuning: cosines are bounded, so what="cosine_head" takes classification only')
    learner = f"fine-tuning ({what})"
    check_positive(learner, inner_lr=inner_lr, temperature=temperature)
    check_at_least(1, learner, test_batch=test_batch)
    check_at_least(0, learner, test_steps=test_steps, weight_decay=weight_decay)
    check_one_of(NormMode, learner, test_norm=test_norm)
    module: Any = encoder.encoder if what == "scratch" and isinstance(encoder, Whitened) else encoder
    frozen = what in ("head", "cosine_head")
    head = CosineHead(way, temperature) if what == "cosine_head" else zero_head(way)
    net = network(module, way, output, head, what="fine-tuning")
    optimiser = optax.chain(optax.add_decayed_weights(weight_decay), make_inner_optimiser(inner_optimiser, inner_lr))

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        params, state = net.init(key, episode, None if what == "scratch" else encoder_params)
        if encoder_params is not None:  # from scratch too: they are kept, and not used
            params, state = split_variables({"encoder": encoder_params})
        return {"encoder": params["encoder"]}, {"encoder": state["encoder"]}

    def own(ctx: Context) -> Context:
        return dataclasses.replace(ctx, norm="support") if what == "scratch" and ctx.norm == "running" else ctx

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        start_key, batch_key = jax.random.split(key)
        given = None if what == "scratch" else encoder_variables(params, state)
        weights, averages = net.init(start_key, Episode(support, support), given)
        examples = support
        if frozen:
            examples = support._replace(inputs=net.support(weights, averages, support, ctx)["features"])
            weights = {"head": weights["head"]}

        def loss(weights: Any, batch: Examples) -> Array:
            if frozen:
                return net.loss(net.outputs(weights, batch.inputs), batch)
            return net.loss(net.support(weights, averages, batch, own(ctx)), batch)

        found = descend(
            loss, weights, examples, batch_key, optimiser=optimiser,
            steps=inner_steps_of(ctx, test_steps, test_steps), batch=test_batch,
        )  # fmt: skip
        scratch = {"averages": averages["encoder"]} if what == "scratch" else {}
        return {"fitted": found.weights, "support": support, "support_loss": found.losses, **scratch}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        state = {**state, "encoder": task.get("averages", state["encoder"])}
        return net.query({**params, **task["fitted"]}, state, task["support"], inputs, own(ctx), mask)

    return MetaLearner(
        init=init,
        adapt=adapt,
        predict=predict,
        loss=net.loss,
        test_context=Context(norm=test_norm),
        shares_encoder=frozen,
        untrainable=f"fine-tuning ({what}) learns nothing from many tasks and cannot be meta-trained. Pretrain an "
        "encoder and judge it with experiments.evaluate --learner, or meta-train another learner, such as maml",
    )


class CosineHead(nn.Module):
    """The cosine of each feature row with a learned vector for each class, divided by ``temperature``."""

    way: int
    temperature: float = 0.1

    @nn.compact
    def __call__(self, features: Float[Array, "n dim"]) -> Float[Array, "n way"]:
        def alike(key: Array, shape: tuple[int, int]) -> Array:
            return jnp.broadcast_to(nn.initializers.lecun_normal()(key, (shape[0], 1)), shape)

        vectors = self.param("kernel", alike, (features.shape[-1], self.way))
        return unit_rows(features) @ unit_rows(vectors.T).T / self.temperature
