"""Reptile: an initialisation that moves towards the weights that training on each task ends at."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array

from metarep_jax.metalearn.descent import Descended, InnerOptimiser, descend, make_inner_optimiser, minibatches
from metarep_jax.metalearn.meta_gradient import mean_over_tasks
from metarep_jax.metalearn.network import Output, check_inner_loop, inner_steps_of, network
from metarep_jax.metalearn.settings import check_at_least, check_one_of, check_positive
from metarep_jax.metalearn.tasks import SUPPORT_LOSS
from metarep_jax.types import Context, Episode, Examples, Keys, MetaLearner, Metrics, NormMode

Moments = Literal["persistent", "fresh"]


def reptile(
    encoder: nn.Module,
    *,
    way: int,
    inner_lr: float = 1e-3,
    inner_steps: int = 5,
    test_steps: int = 50,
    inner_batch: int = 10,
    test_batch: int = 5,
    train_shot: int = 10,
    inner_optimiser: InnerOptimiser = "adam_beta1_0",
    moments: Moments = "persistent",
    test_norm: NormMode = "one_query",
    output: Output = "logits",
) -> MetaLearner:
    """Trains on a task by an ordinary optimiser, from θ0 to θ_K, and moves θ0 towards the mean θ_K of several tasks.

    No gradient passes through adaptation. ``meta_grad`` is θ0 − mean(θ_K), so that plain gradient descent at rate ε
    is the paper's θ0 ← θ0 + ε (mean(θ_K) − θ0). Its ε falls in a line from 1 to 0:
    ``OptimiserConfig(name="sgd", learning_rate=1.0, schedule="linear")``. Any other outer optimiser will do too.

    The defaults are those of 5-way Omniglot. For 20-way the paper takes inner_lr 5e-4, inner_steps 10, inner_batch 20
    and test_batch 10; both take 5 tasks a step.

    Args:
      encoder: a module of ``metarep_jax.encoders``, made with ``adapted=True``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      inner_lr: rate of the inner optimiser.
      inner_steps, test_steps: minibatches in training and at test.
      inner_batch, test_batch: rows of a minibatch of the support set in training and at test (``descent.minibatches``).
      train_shot: support examples a class of a training episode, which has no queries.
      inner_optimiser: what takes the steps: a name of ``descent.INNER_OPTIMISERS``, or, in code, a function from the
        rate to an optax optimiser.
      moments: "persistent", the inner optimiser goes on from what it remembers of earlier tasks, also at test, as in
        the original, whose optimiser's variables outlive a task; or "fresh", it starts anew on every task, which is
        another algorithm: the first step of Adam is then the gradient's sign. The tasks of one step start from the
        same moments, and their mean is kept; in the original they follow one another, each from the last one's.
      test_norm: whose statistics batch norm uses for the queries at test. "one_query" is the paper's result without
        transduction, "transductive" the other one (with its own settings: 3 steps of 25 out of 15 shots, 10 tasks, 5
        steps of 25 at test).
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head"}`` whose ``task`` is the fast weights and the support set.
      Inner steps normalise by their minibatch. The running averages move by one more minibatch at θ_K.
      state["moments"] holds the leaves of the inner optimiser's state. The head starts at zero.

    Raises:
      ValueError: for an unknown inner optimiser or kind of moments, a rate that is not positive, a negative number of
        steps, or a batch or shot below 1.

    References:
      Nichol et al. 2018, https://arxiv.org/abs/1803.02999, algorithm 2, sections 6.1 and A.
    """
    check_one_of(Moments, "Reptile", moments=moments)
    check_positive("Reptile", inner_lr=inner_lr)
    check_at_least(1, "Reptile", inner_batch=inner_batch, test_batch=test_batch, train_shot=train_shot)
    check_inner_loop("Reptile", inner_steps=inner_steps, test_steps=test_steps, test_norm=test_norm)
    net = network(encoder, way, output, what="Reptile")
    optimiser = make_inner_optimiser(inner_optimiser, inner_lr)
    train_context = Context(train=True)

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        params, state = net.init(key, episode, encoder_params)
        kept = {"moments": jax.tree.leaves(optimiser.init(params))} if moments == "persistent" else {}
        return params, {**state, **kept}

    def train(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> Descended:
        def loss(weights: Any, batch: Examples) -> Array:
            return net.loss(net.support(weights, state, batch, ctx), batch)

        memory = optimiser.init(params)
        if moments == "persistent":  # only leaves are kept: a saved model knows no optax classes
            memory = jax.tree.unflatten(jax.tree.structure(memory), state["moments"])
        return descend(
            loss, params, support, key, optimiser=optimiser, optimiser_state=memory,
            steps=inner_steps_of(ctx, inner_steps, test_steps), batch=inner_batch if ctx.train else test_batch,
        )  # fmt: skip

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        found = train(params, state, support, key, ctx)
        return {"fast": found.weights, "support": support, "support_loss": found.losses}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        del params
        return net.query(task["fast"], state, task["support"], inputs, ctx, mask)

    def task_loss(params: Any, state: Any, episode: Episode, key: Array) -> tuple[Array, tuple[Any, Metrics]]:
        """A function whose gradient is θ0 − θ_K: it is linear in θ0, with the difference as its constant slope."""
        train_key, last_key = jax.random.split(key)
        support = episode.support
        found = train(lax.stop_gradient(params), state, support, train_key, train_context)
        slope = jax.tree.map(lambda before, after: lax.stop_gradient(before) - after, params, found.weights)
        value = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, params, slope)), start=jnp.zeros(()))

        rows = minibatches(last_key, support.label.shape[0], steps=1, batch=inner_batch, mask=support.mask)[0]
        last = jax.tree.map(lambda leaf: leaf[rows], support)
        moved = net.query(found.weights, state, last, last.inputs, train_context, last.mask)["state"]
        if moments == "persistent":
            moved = {**moved, "moments": jax.tree.leaves(found.optimiser_state)}
        metrics = {f"{SUPPORT_LOSS}{step}": found.losses[step] for step in range(inner_steps)}
        return value, (moved, {"loss": found.losses.sum() / max(inner_steps, 1), **metrics})

    def meta_grad(
        params: Any, state: Any, episodes: Episode, keys: Keys, step: Any, chunk: int | None = None
    ) -> tuple[Any, Any, Metrics]:
        del step
        return mean_over_tasks(task_loss, chunk)(params, state, episodes, keys.example)

    return MetaLearner(
        init=init,
        adapt=adapt,
        predict=predict,
        loss=net.loss,
        meta_grad=meta_grad,
        train_context=train_context,
        test_context=Context(norm=test_norm),
        episode_spec=lambda spec: dataclasses.replace(spec, shot=train_shot, query=0),
    )
