"""Policies that adapt to tasks of an environment by policy gradient: trained, and judged by their returns."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cattrs
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Key

from metarep_jax.data.control.environments import Environment, environment_feed, task_of
from metarep_jax.evaluate.returns import returns_by_updates
from metarep_jax.evaluate.step_sizes import Judge, Policy, Rates, choose_step_sizes
from metarep_jax.metalearn.policy_gradient import policy_gradient
from metarep_jax.stages.compute import Compute, train_in_folder
from metarep_jax.train import FitConfig, OptimiserConfig, meta_learning
from metarep_jax.train.step import make_roots
from metarep_jax.typed_settings import Settings
from metarep_jax.types import EpisodeSpec, MetaLearner

TEST, CHOICE, PATHS = range(3)  # streams of randomness; numbers that must never change, or measured returns would
Weights = tuple[Any, Any]  # parameters and state of a policy


@dataclasses.dataclass(frozen=True)
class PolicySettings(Settings):
    """How policies are trained."""

    trajectories: int = 20
    """Episodes of a task for each update in training, and after the last."""
    inner_lr: float = 0.5
    """Step size of the update in training."""
    least_std: float = 0.2
    """The least standard deviation of an action, as a share of the environment's limit."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-2, schedule="cosine")
    train: FitConfig = FitConfig(steps=500, batch_size=20)
    """The loop; a batch is of tasks."""

    def identity(self, environment: str) -> dict[str, Any]:
        """All that trained policies depend on, as plain values; ``environment`` is its name."""
        return {"data": environment, **cattrs.unstructure(self)}


@dataclasses.dataclass(frozen=True)
class ReturnSettings(Settings):
    """How policies are judged."""

    rates: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    """Step sizes that are tried at test."""
    tasks: int = 100
    """Of the test, for each seed."""
    choice_tasks: int = 20
    """Other tasks, by which step sizes are chosen."""
    trajectories: int = 40
    """Episodes of a task for each update."""
    updates: int = 3
    """After each of which the return is measured."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("tasks", "choice_tasks", "trajectories"):
            if getattr(self, name) < 1:
                raise ValueError(f"ReturnSettings.{name} must be at least 1, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class PolicyFamily:
    """Policies of one network for one environment, before any is trained."""

    name: str
    """Of the environment."""
    environment: Environment
    encoder: nn.Module
    settings: PolicySettings = PolicySettings()

    def learner(
        self, rate: float | Array | None = None, later: float | Array | None = None, inner_steps: int = 1
    ) -> MetaLearner:
        """MAML's policy gradient; with 0 inner steps, a policy for all tasks at once.

        Args:
          rate: step size of the first update; None: that of the training.
          later: of the updates after it; None: half of the first.
          inner_steps: updates in training.
        """
        settings, rate = self.settings, self.settings.inner_lr if rate is None else rate
        return policy_gradient(
            self.encoder, self.environment,
            inner_lr=rate, later_lr=later, inner_steps=inner_steps, least_std=settings.least_std,
        )  # fmt: skip


def train_policy(family: PolicyFamily, compute: Compute, *, inner_steps: int = 1, what: str = "policy") -> Weights:
    """Trains a policy to adapt to new tasks in ``inner_steps`` updates, or goes on in the folder of ``compute``."""
    settings = family.settings
    spec = EpisodeSpec(way=1, shot=settings.trajectories, query=settings.trajectories)
    fitted = train_in_folder(
        compute,
        meta_learning(family.learner(inner_steps=inner_steps), spec),
        environment_feed(family.environment, spec, settings.train.batch_size),
        settings.optimiser,
        settings.train,
        identity=settings.identity(family.name),
        what=what,
    )
    return fitted.params, fitted.state


def untrained_policy(family: PolicyFamily, seed: int) -> Weights:
    """The random weights that trained policies of this seed start from."""
    task = task_of(family.environment.sample(jax.random.key(0)), EpisodeSpec(way=1))  # of which only the shape counts
    return jax.jit(family.learner().init)(make_roots((seed,)).init, task)


def judge_policies(
    family: PolicyFamily,
    weights: Sequence[Weights],
    settings: ReturnSettings,
    compute: Compute,
    *,
    first: float | None = None,
    what: str = "policy",
) -> tuple[list[Float[np.ndarray, "tasks updates_and_one"]], Rates]:
    """Returns on new tasks after 0, 1, … updates, a seed an array, with the step sizes that serve all seeds best.

    Args:
      family: of the policies.
      weights: one a seed, of seeds 0, 1, …; each is judged on tasks of its own.
      settings: how they are judged.
      compute: whose devices are used.
      first: the step size of the first update, where the training fixes it.
      what: names the policies in the log.
    """
    choice = judge_on(family, settings, compute, CHOICE, settings.choice_tasks)
    rates = choose_step_sizes(choice, weights, settings.rates, what=what, first=first)
    judge = judge_on(family, settings, compute, TEST, settings.tasks)
    return [judge(Policy(*each, *rates), seed) for seed, each in enumerate(weights)], rates


def judge_on(family: PolicyFamily, settings: ReturnSettings, compute: Compute, stream: int, tasks: int) -> Judge:
    """``(policy, seed) -> returns [tasks, updates + 1]``: on so many tasks of the stream, other ones for each seed."""

    def one(key: Array, params: Any, state: Any, rate: Array, later: Array) -> Array:
        return returns_by_updates(
            family.learner(rate, later), params, state, family.environment, key,
            updates=settings.updates, trajectories=settings.trajectories,
        )  # fmt: skip

    def judge(policy: Policy, seed: int) -> np.ndarray:
        keys = jax.random.split(jax.random.fold_in(stream_key(stream), seed), tasks)
        rates = jnp.float32(policy.rate), jnp.float32(policy.later)
        return np.asarray(compute.mapper(one, keys, policy.params, policy.state, *rates))

    return judge


def stream_key(stream: int) -> Key[Array, ""]:
    """A key for one purpose: ``TEST``, ``CHOICE`` or ``PATHS``."""
    return jax.random.fold_in(jax.random.key(0), stream)
