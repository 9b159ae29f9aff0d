"""MAML++: MAML judged after every inner step, with rates and norms of its own for each, and second order only later."""

from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from metarep_jax.metalearn.inner import inner_loop
from metarep_jax.metalearn.meta_gradient import mean_over_tasks
from metarep_jax.metalearn.network import Output, check_inner_loop, inner_steps_of, network
from metarep_jax.metalearn.settings import check_positive
from metarep_jax.metalearn.step_norms import averages_at, later_steps, moved_at, split_norms, weights_at
from metarep_jax.metalearn.tasks import support_losses
from metarep_jax.types import Context, Episode, Examples, Keys, MetaLearner, Metrics, NormMode, query_metrics


def maml_pp(
    encoder: nn.Module,
    *,
    way: int,
    inner_lr: float = 0.1,
    inner_steps: int = 5,
    test_steps: int = 5,
    multi_step_updates: int = 5000,
    first_order_updates: int = 0,
    order: Literal[1, 2] = 2,
    remat: bool = False,
    mixed: bool = False,
    test_norm: NormMode = "transductive",
    output: Output = "logits",
) -> MetaLearner:
    """MAML with the remedies of "How to train your MAML". Where its authors' code differs from the paper, this says so.

    - Multi-step loss: for the first ``multi_step_updates`` updates the query loss after every inner step counts, by
      ``step_importance``; then the last alone. (In their code each keeps 3% of its first weight until then.)
    - Derivative-order annealing: first order for the first ``first_order_updates`` updates.
    - Learned rates: one for each kernel or bias ("layer") and inner step.
    - Norms: each inner step has scales, shifts and running averages of its own. As in their code the outer loop learns
      scales and shifts and no inner step moves them (the paper speaks of an inner update), and the queries after a step
      pass through the norms that its support set did. The paper normalises by the step's running averages; their code
      never does, but by the current batch: "transductive", the default here too. Every pass of support sets and queries
      in training moves the averages, for test_norm="running".
    - The outer rate falls by a cosine: ``OptimiserConfig(schedule="cosine")``.

    Args:
      encoder: a module of ``metarep_jax.encoders``, made with ``adapted=True``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      inner_lr: what the learned rates start from, on the mean support loss.
      inner_steps, test_steps: inner steps in training and at test; steps at test beyond ``inner_steps`` use the last
        one's rates and norms.
      multi_step_updates: updates over which the loss of early inner steps is annealed. The authors' Omniglot settings
        are 10 epochs of 500; 0: the last step's loss alone.
      first_order_updates: updates at first order, before those at second: 50 epochs in the paper, none in the authors'
        Omniglot settings.
      order: 1 drops second derivatives (first-order MAML), 2 differentiates through the inner gradients.
      remat: recompute inner steps in the backward pass, in nested groups, to save memory (``inner.inner_loop``).
      mixed: differentiate through inner gradients forward over reverse, to save memory (``inner.inner_loop``).
      test_norm: whose statistics batch norm uses for the queries at test; training uses those of the query batch.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head", "rule"}``: rule["learning_rate"] [inner_steps] of each weight,
      by its path; rule["norms"] and state["norms"] of the later steps (``step_norms``).

    Raises:
      ValueError: for no inner step, a rate that is not positive, an order other than 1 and 2, or a negative number of
        updates.

    References:
      Antoniou et al. 2019, https://arxiv.org/abs/1810.09502, section 4;
      https://github.com/AntreasAntoniou/HowToTrainYourMAMLPytorch (the authors' code).
    """
    if inner_steps < 1 or min(multi_step_updates, first_order_updates) < 0:
        raise ValueError(
            f"MAML++ needs inner_steps of at least 1 and updates of at least 0, got inner_steps={inner_steps}, "
            f"multi_step_updates={multi_step_updates}, first_order_updates={first_order_updates}"
        )
    check_positive("MAML++", inner_lr=inner_lr)
    check_inner_loop("MAML++", inner_steps=inner_steps, test_steps=test_steps, order=order, test_norm=test_norm)
    net, last = network(encoder, way, output, what="MAML++"), inner_steps - 1

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        params, state = net.init(key, episode, encoder_params)
        adapting, norms = split_norms(params)
        rates = {path: jnp.full(inner_steps, inner_lr) for path in adapting}
        kept = {"norms": later_steps(state["encoder"], inner_steps)}
        return {**params, "rule": {"learning_rate": rates, "norms": later_steps(norms, inner_steps)}}, {**state, **kept}

    def descend(params: Any, state: Any, support: Examples, ctx: Context, steps: int) -> tuple[list, Array]:
        """The adapting weights before each step and after the last, and the support losses [steps]."""
        path, losses = [split_norms(params)[0]], []
        for step in (min(step, last) for step in range(steps)):

            def support_loss(fast: Any, _: Any, step: int = step) -> Array:
                outputs = net.support(weights_at(params, fast, step), averages_at(state, step), support, ctx)
                return net.loss(outputs, support)

            rates = {name: rate[step] for name, rate in params["rule"]["learning_rate"].items()}
            how = {"order": ctx.order, "remat": remat, "mixed": mixed}
            fast, loss = inner_loop(support_loss, path[-1], steps=1, learning_rate=rates, **how)
            path.append(fast)
            losses.append(loss)
        return path, jnp.concatenate(losses) if losses else jnp.zeros(0)

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        path, losses = descend(params, state, support, ctx, inner_steps_of(ctx, inner_steps, test_steps))
        return {"fast": weights_at(params, path[-1], judged(ctx)), "support": support, "support_loss": losses}

    def judged(ctx: Context) -> int:
        """The step whose norms the queries pass through."""
        return min(max(inner_steps_of(ctx, inner_steps, test_steps) - 1, 0), last)

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        del params
        step = judged(ctx)
        found = net.query(task["fast"], averages_at(state, step), task["support"], inputs, ctx, mask)
        return {**found, "state": moved_at(state, step, found)} if ctx.train else found

    def task_loss(
        ctx: Context, importance: Array | None, params: Any, state: Any, episode: Episode, key: Array
    ) -> tuple[Array, tuple[Any, Metrics]]:
        del key
        (support, query), value, outputs = episode, jnp.zeros(()), {}
        path, losses = descend(params, state, support, ctx, inner_steps)

        def passed(fast: dict[str, Array], rows: Examples, state: Any, step: int) -> tuple[dict, Any]:
            weights, averages = weights_at(params, fast, step), averages_at(state, step)
            found = net.query(weights, averages, support, rows.inputs, ctx, rows.mask)
            return found, moved_at(state, step, found)

        for step in range(inner_steps):
            _, state = passed(path[step], support, state, step)  # as in the inner loop, which tells the loss alone
            if importance is not None or step == last:
                outputs, state = passed(path[step + 1], query, state, step)
                value = value + net.loss(outputs, query) * (1 if importance is None else importance[step])
        metrics = {"loss": value, **query_metrics(outputs, query), **support_losses({"support_loss": losses})}
        return value, (state, metrics)

    def meta_grad(
        params: Any, state: Any, episodes: Episode, keys: Keys, step: Any, chunk: int | None = None
    ) -> tuple[Any, Any, Metrics]:
        def phase(start: int, step: Any, *given: Any) -> tuple[Any, Any, Metrics]:
            ctx = Context(train=True, order=1 if start < first_order_updates else order)
            importance = step_importance(step, inner_steps, multi_step_updates) if start < multi_step_updates else None
            return mean_over_tasks(partial(task_loss, ctx, importance), chunk)(*given)

        starts = sorted({0, multi_step_updates, first_order_updates})  # updates at which what is computed changes
        now = sum(step >= start for start in starts[1:])
        phases = [partial(phase, start) for start in starts]
        return lax.switch(now, phases, jnp.asarray(step), params, state, episodes, keys.example)

    contexts = Context(train=True, order=order), Context(norm=test_norm)
    return MetaLearner(init, adapt, predict, net.loss, meta_grad, *contexts)


def step_importance(update: Any, steps: int, annealing: int) -> Float[Array, " steps"]:
    """How much each inner step's query loss counts: all alike at first, the last alone from ``annealing`` on; Σ = 1."""
    early = jnp.clip(1 - update / annealing, 0, 1) / steps
    return jnp.where(jnp.arange(steps) == steps - 1, 1 - (steps - 1) * early, early)
