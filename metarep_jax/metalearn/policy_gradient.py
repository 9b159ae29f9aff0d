"""MAML for reinforcement learning: an initial policy that one policy gradient makes good at a task."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Key

from metarep_jax.data.control.environments import Environment, Trajectories, rollout
from metarep_jax.metalearn.inner import inner_loop
from metarep_jax.metalearn.network import inner_steps_of, network
from metarep_jax.metalearn.policies import Gaussian, GaussianHead
from metarep_jax.metalearn.reinforce import Estimator, credit, policy_loss
from metarep_jax.types import Context, Episode, Examples, MetaLearner

RUNNING = Context(norm="running")  # a policy's answer does not depend on the other observations of a batch


def policy_gradient(
    encoder: nn.Module,
    environment: Environment,
    *,
    inner_lr: float | Float[Array, ""] = 0.1,
    later_lr: float | Float[Array, ""] | None = None,
    inner_steps: int = 1,
    test_steps: int = 3,
    order: Literal[1, 2] = 2,
    discount: float = 0.99,
    standardise: bool = True,
    estimator: Estimator = "surrogate",
    least_std: float = 1e-6,
    remat: bool = False,
    mixed: bool = False,
) -> MetaLearner:
    """Learns a policy whose return is high after ``inner_steps`` policy gradients, each from trajectories of its own.

    A task's ``inputs`` are the parameters of its environment, a row a trajectory; there are no labels. ``adapt``
    collects a trajectory for each row of the support with the weights of the moment, and takes a REINFORCE step;
    ``predict`` collects one for each row of the query with the weights that came out. The loss of both is the negative
    mean reward a step of the horizon.

    What the meta-gradient holds: trajectories after the update are drawn from the adapted policy, which depends on the
    initial one through the update, and the score function of the adapted policy, differentiated through the update,
    says how. Trajectories *before* the update are drawn from the initial policy, too. Under "surrogate" they are taken
    as given, as in the original: how the initial policy's exploration makes for better updates is not credited. Under
    "dice" the update's derivative is that of the expected update.

    What differs from the original: its outer step is TRPO's; here the gradient goes to any optimiser, Adam for one,
    as all learners' do. Its baseline is fitted to the trajectories that it judges; here to the others, which leaves the
    expected gradient as it is (but for what ``standardise`` takes from all of a task's trajectories). It divides by the
    steps that were taken; here by those of the whole horizon, which leaves it in proportion to the return's.

    Args:
      encoder: observations -> features, a module of ``metarep_jax.encoders``, without batch norm.
      environment: what the tasks are drawn from.
      inner_lr: α, on the loss above. With advantages of deviation 1 this is the original's: 0.1 in the paper, 0.5 in
        its code for the point.
      later_lr: α after the first step; None: half of ``inner_lr``, as the paper takes it at test.
      inner_steps, test_steps, order, remat, mixed: as in ``maml``.
      discount: of later rewards in what an action is credited with.
      standardise: whether advantages are brought to mean 0 and deviation 1 in each task and update.
      estimator: see ``reinforce.policy_loss``.
      least_std: of actions, in units of the environment's limit; the original has 1e-6. Gradients grow as its inverse,
        so that updates which follow one another may narrow the policy until one of them throws it far away.

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head"}``. Its task has the fast weights, and in ``support_return``
      the mean return before each inner step; ``predict`` gives ``trajectories`` and their ``return`` [n].

    Raises:
      ValueError: for a ``least_std`` that is not positive, and by ``init`` for tasks that are not parameters of
        ``environment``.

    References:
      Finn et al. 2017, https://arxiv.org/abs/1703.03400, algorithm 3, section 5.3 and appendix A.2.
    """
    if least_std <= 0:
        raise ValueError(f"policy_gradient: least_std must be positive, got {least_std}")
    head = GaussianHead(environment.action_size, least_std)
    net = network(encoder, environment.action_size, "mean", head, "policy gradient")
    rates = inner_lr, inner_lr / 2 if later_lr is None else later_lr

    def init(key: Key[Array, ""], episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        check_parameters(episode, environment)
        parameters = jax.tree.map(lambda leaf: leaf[0], episode.support.inputs)
        observation, _ = environment.reset(key, parameters)
        seen = Examples(observation[None], jnp.zeros((1, environment.action_size)))
        return net.init(key, Episode(seen, seen), encoder_params)

    def policy_of(weights: Any, state: Any, observation: Float[Array, "n o"]) -> Gaussian:
        return net.support(weights, state, Examples(observation, observation), RUNNING)["mean"]

    def collect(weights: Any, state: Any, parameters: Any, key: Key[Array, ""]) -> tuple[Trajectories, Array]:
        fixed = lax.stop_gradient(weights)

        def act(key: Key[Array, ""], observation: Float[Array, "n o"]) -> Float[Array, "n a"]:
            return environment.action_limit * policy_of(fixed, state, observation).sample(key)

        found = rollout(key, environment, act, parameters)
        rows = found.observation.reshape(-1, found.observation.shape[-1])
        action = found.action.reshape(-1, environment.action_size) / environment.action_limit
        return found, policy_of(weights, state, rows).log_prob(action).reshape(found.reward.shape)

    def loss_of(trajectories: Trajectories, log_prob: Array, mask: Array | None) -> Array:
        counts = jnp.ones(log_prob.shape[0], bool) if mask is None else mask
        judged = credit(trajectories, counts, discount=discount, standardise=standardise)
        return policy_loss(log_prob, trajectories, judged, counts, discount=discount, estimator=estimator)

    def adapt(params: Any, state: Any, support: Examples, key: Key[Array, ""], ctx: Context) -> dict:
        support_key, query_key = jax.random.split(key)

        def support_loss(weights: Any, step: Any) -> Array:
            found, log_prob = collect(weights, state, support.inputs, jax.random.fold_in(support_key, step))
            return loss_of(found, log_prob, support.mask)

        fast, losses = inner_loop(
            support_loss, params, steps=inner_steps_of(ctx, inner_steps, test_steps), order=ctx.order, remat=remat,
            mixed=mixed, learning_rate=lambda step: jnp.where(step == 0, *rates),
        )  # fmt: skip
        returns = -environment.horizon * losses
        return {"fast": fast, "key": query_key, "support_loss": losses, "support_return": returns}

    def predict(params: Any, state: Any, task: dict, inputs: Any, ctx: Context, mask: Any = None) -> dict:
        del params, ctx, mask
        found, log_prob = collect(task["fast"], state, inputs, task["key"])
        return {"trajectories": found, "log_prob": log_prob, "return": found.reward.sum(1)}

    def loss(outputs: dict, query: Examples) -> Array:
        return loss_of(outputs["trajectories"], outputs["log_prob"], query.mask)

    return MetaLearner(init, adapt, predict, loss, train_context=Context(train=True, order=order))


def check_parameters(episode: Episode, environment: Environment) -> None:
    """Raises ValueError when a task's inputs are not parameters of ``environment``, one row a trajectory."""
    wanted = jax.eval_shape(environment.sample, jax.random.key(0))
    found = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), episode.support.inputs)
    if found != wanted:
        raise ValueError(
            "policy gradient collects its own trajectories: a task's inputs are the parameters of its environment, "
            f"rows of {wanted}; this task's are rows of {found}"
        )
