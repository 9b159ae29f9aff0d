"""Reinforcement learning: a point learns to find goals that it does not see, and to do so after one update.

    python -m experiments.navigation            # three seeds, minutes on 2 CPU cores; the same command resumes

Three policies adapt to new goals by policy gradient: one trained by MAML, one trained over all goals without adapting,
and one with random weights. Writes the return after 0 to 3 updates of each, and the paths of some episodes. The two
that were not trained to adapt take the step size that serves them best on other goals. To keep a run's result:

    python -m experiments.publish runs/navigation navigation --figures returns paths
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.cli import Report, command_line, console, errors_as_messages, parse, settings_of, write_report
from metarep_jax.data.environments import Trajectories, environment_feed, task_of
from metarep_jax.data.navigation_environment import FASTEST, NavigationParameters, Reward, navigation
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate import interval, interval_over_seeds
from metarep_jax.evaluate.returns import returns_by_updates
from metarep_jax.metalearn.policy_gradient import policy_gradient
from metarep_jax.metalearn.reinforce import Estimator
from metarep_jax.report import results
from metarep_jax.report.figures import save_learning_curves, save_lines, save_paths
from metarep_jax.report.labels import row_label
from metarep_jax.report.published import published_column
from metarep_jax.train import (
    FitConfig,
    OptimiserConfig,
    dividing_devices,
    fit,
    local_devices,
    map_over_keys,
    meta_learning,
    open_run,
    use_cpu_devices,
)
from metarep_jax.train.step import make_roots
from metarep_jax.types import EpisodeSpec, MetaLearner

UPDATES = 3
COLUMNS = tuple(f"{k} update{'' if k == 1 else 's'}" for k in range(UPDATES + 1))
PUBLISHED = (-40.41, -11.68, -3.33, -3.23)  # Finn et al. 2017, table 4: MAML on this task
ENCODER = MLP(widths=(100, 100), norm="none")
CHOICE_GOALS = 20  # by which step sizes are chosen
GOALS = ((0.4, 0.3), (-0.35, 0.4), (-0.2, -0.45), (0.45, -0.15))  # of the figure of paths
STAGES = {"before": 0, "after 1 update": 1}
SHOWN_EPISODES = 6
TEST, CHOICE, PATHS = range(3)  # streams of randomness under the run's key


@dataclasses.dataclass(frozen=True)
class NavigationConfig:
    """Flags of experiments.navigation."""

    reward: Reward = "distance"
    """After each step: the negative distance to the goal, as in the original's code, or its square, as in the paper."""
    trajectories: int = 20
    """Episodes that are collected in training for each update, and after it."""
    inner_lr: float = 0.5
    """MAML's first step size."""
    least_std: float = 0.2
    """The policies' smallest standard deviation of a step, in units of the longest one."""
    estimator: Estimator = "surrogate"
    """How MAML's meta-gradient sees the update: metarep_jax.metalearn.reinforce.policy_loss."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-2, schedule="cosine")
    train: FitConfig = FitConfig(steps=300, batch_size=20, log_every=10, checkpoint_every=50)
    """Of MAML and of the pretrained policy; a batch is of tasks."""
    seeds: int = 3
    """Training runs of each, of seeds seed to seed+N-1."""
    rates: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    """Step sizes that are tried: for the first update of the pretrained and the random policy, and for every policy's
    later ones, among them none."""
    goals: int = 100
    """Goals of the test. Step sizes are chosen on 20 others a seed."""
    test_trajectories: int = 40
    """Episodes for each update at test, as in the paper."""
    run_folder: Path = Path("runs/navigation")
    """Where the run writes."""
    seed: int = 0
    """All randomness of the run follows from it."""
    devices: int | None = None
    """Devices to use; default: all that divide a batch (on a CPU, one a core)."""

    def __post_init__(self):
        for field in ("trajectories", "seeds", "goals", "test_trajectories"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.train.seeds != 1:
            raise ValueError(f"train.seeds must be 1, got {self.train.seeds}; set --seeds")
        if min(self.inner_lr, self.least_std) <= 0 or not self.rates or min(self.rates) <= 0:
            given = f"{self.inner_lr}, {self.least_std} and {self.rates}"
            raise ValueError(f"inner_lr, least_std and rates must be positive, got {given}")


class Policy(NamedTuple):
    """An initial policy, and the step sizes of its first and its later updates."""

    params: Any
    state: Any
    rate: float
    later: float


Judge = Callable[[Policy, int], np.ndarray]
Rates = tuple[float, float]  # step sizes of the first and of later updates


def learner_of(
    config: NavigationConfig, rate: float | Array, later: float | Array | None = None, inner_steps: int = 1
) -> MetaLearner:
    """MAML's policy gradient; with 0 inner steps, a policy for all goals at once."""
    environment = navigation(reward=config.reward)
    return policy_gradient(
        ENCODER,
        environment,
        inner_lr=rate,
        later_lr=later,
        inner_steps=inner_steps,
        estimator=config.estimator,
        least_std=config.least_std,
    )


def trained(config: NavigationConfig, name: str, inner_steps: int, seed: int, devices: list) -> tuple[Any, Any]:
    """Parameters and state after training; taken from checkpoints where an earlier run made them."""
    spec = EpisodeSpec(way=1, shot=config.trajectories, query=config.trajectories)
    fitted = fit(
        meta_learning(learner_of(config, config.inner_lr, inner_steps=inner_steps), spec),
        environment_feed(navigation(reward=config.reward), spec, config.train.batch_size),
        optimiser=config.optimiser,
        config=config.train,
        seed=seed,
        folder=config.run_folder / name / f"seed{seed}",
        description=f"{name}, seed {seed}",
        settings=training_settings(config),
        devices=devices if config.devices else dividing_devices(devices, config.train.batch_size),
    )
    return fitted.params, fitted.state


def untrained(config: NavigationConfig, seed: int) -> tuple[Any, Any]:
    """The random weights that the trained policies of this seed start from."""
    task = task_of(NavigationParameters(jnp.zeros(2)), EpisodeSpec(way=1))
    return jax.jit(learner_of(config, config.inner_lr).init)(make_roots((seed,)).init, task)


def judge_on(config: NavigationConfig, stream: int, goals: int, devices: list) -> Judge:
    """``(policy, seed) -> returns [goals, updates + 1]``: on so many goals of the stream, other ones for each seed."""

    def one(key: Array, params: Any, state: Any, rate: Array, later: Array) -> Array:
        environment = navigation(reward=config.reward)
        return returns_by_updates(
            learner_of(config, rate, later), params, state, environment, key,
            updates=UPDATES, trajectories=config.test_trajectories,
        )  # fmt: skip

    def judge(policy: Policy, seed: int) -> np.ndarray:
        keys = jax.random.split(jax.random.fold_in(key_of(config, stream), seed), goals)
        rates = jnp.float32(policy.rate), jnp.float32(policy.later)
        return np.asarray(map_over_keys(one, keys, policy.params, policy.state, *rates, devices=devices))

    return judge


def best_rates(judge: Judge, weights: list[Any], tried: list[Rates], columns: slice, told: str) -> Rates:
    """Those of the highest return after the updates of ``columns``, a mean over the policies; prints all."""

    def value(rates: Rates) -> float:
        policies = [Policy(params, state, *rates) for params, state in weights]
        return float(np.mean([judge(policy, k)[:, columns] for k, policy in enumerate(policies)]))

    values = [value(rates) for rates in tried]
    each = ", ".join(f"{first:g}, {later:g}: {value:.1f}" for (first, later), value in zip(tried, values))
    console.print(f"{told} by step sizes: {each}", highlight=False)
    return tried[int(np.argmax(np.nan_to_num(values, nan=-np.inf)))]


def step_sizes(config: NavigationConfig, judge: Judge, row: str, weights: list[Any]) -> Rates:
    """Step sizes of the first update (MAML's is its training's) and of later ones, by returns on goals of their own."""
    first = config.inner_lr
    if row != "maml":
        tried = [(rate, 0.0) for rate in config.rates]
        first, _ = best_rates(judge, weights, tried, slice(1, 2), f"{row}: return after 1 update")
    tried = [(first, later) for later in (0.0, *config.rates)]
    return best_rates(judge, weights, tried, slice(2, None), f"{row}: mean return after 2 and 3 updates")


def policies_of(config: NavigationConfig, devices: list) -> dict[str, list[Policy]]:
    """Policies of each row, one a seed, all of a row with the step sizes that serve them best together."""
    judge = judge_on(config, CHOICE, CHOICE_GOALS, devices)
    weights: dict[str, list[Any]] = {"maml": [], "pretrained_on_all_goals": [], "random_weights": []}
    for seed in range(config.seed, config.seed + config.seeds):
        weights["maml"].append(trained(config, "maml", 1, seed, devices))
        weights["pretrained_on_all_goals"].append(trained(config, "pretrained", 0, seed, devices))
        weights["random_weights"].append(untrained(config, seed))
    rates = {row: step_sizes(config, judge, row, found) for row, found in weights.items()}
    return {row: [Policy(params, state, *rates[row]) for params, state in found] for row, found in weights.items()}


def cells_of(config: NavigationConfig, policies: dict[str, list[Policy]], devices: list) -> results.Cells:
    """Mean returns on test goals; published ones beside MAML's where the reward is theirs."""
    judge, cells = judge_on(config, TEST, config.goals, devices), {}
    for row, seeds in policies.items():
        returns = [judge(policy, config.seed + k) for k, policy in enumerate(seeds)]
        cells[row] = {
            column: interval_over_seeds([interval(found[:, k]) for found in returns]).cell()
            for k, column in enumerate(COLUMNS)
        }
    if config.reward == "distance":
        for column, value in zip(COLUMNS, PUBLISHED):
            cells["maml"][published_column(column)] = {"mean": value, "ci95": None, "n": 1}
    return cells


def paths_of(config: NavigationConfig, policy: Policy, goals: Any, updates: int) -> list[list[np.ndarray]]:
    """Positions in some episodes towards each goal after that many updates."""
    learner = learner_of(config, policy.rate)
    ctx = dataclasses.replace(learner.test_context, inner_steps=updates)
    spec = EpisodeSpec(way=1, shot=config.test_trajectories, query=SHOWN_EPISODES)

    def one(given: tuple[Array, Array]) -> Trajectories:
        goal, key = given
        support, query = task_of(NavigationParameters(goal), spec)
        task = learner.adapt(policy.params, policy.state, support, key, ctx)
        return learner.predict(policy.params, policy.state, task, query.inputs, ctx)["trajectories"]

    keys = jax.random.split(key_of(config, PATHS), len(goals))
    found = jax.tree.map(np.asarray, jax.jit(lambda *given: jax.lax.map(one, given))(goals, keys))
    ends = found.observation + np.clip(found.action, -FASTEST, FASTEST)
    return [
        [np.concatenate([np.zeros((1, 2)), path[mask]]) for path, mask in zip(paths, masks)]
        for paths, masks in zip(ends, found.mask)
    ]


def figures_of(config: NavigationConfig, policies: dict[str, list[Policy]], cells: results.Cells) -> list[Path]:
    """Draws the returns, the first seed's paths, and the course of its training."""
    folder = config.run_folder / "figures"
    paths = [folder / f"{name}.png" for name in ("returns", "paths", "curves")]
    save_lines(paths[0], cells, title="Return on new goals, mean of an episode", xlabel="updates by policy gradient")
    rows = {}
    for row in ("maml", "pretrained_on_all_goals"):
        by_stage = {stage: paths_of(config, policies[row][0], jnp.array(GOALS), k) for stage, k in STAGES.items()}
        rows[row] = [{stage: found[k] for stage, found in by_stage.items()} for k in range(len(GOALS))]
    save_paths(paths[1], rows, np.array(GOALS))
    runs = {name: config.run_folder / name / f"seed{config.seed}" / "metrics.jsonl" for name in ("maml", "pretrained")}
    save_learning_curves(paths[2], runs)
    return paths


def key_of(config: NavigationConfig, stream: int) -> Array:
    """A key for one purpose."""
    return jax.random.fold_in(jax.random.key(config.seed), stream)


def training_settings(config: NavigationConfig) -> dict[str, Any]:
    """What the trained policies depend on: the rest may change between runs in one folder."""
    judging = ("seed", "seeds", "rates", "goals", "test_trajectories", "devices")
    return {name: value for name, value in settings_of(config).items() if name not in judging}


def main(config: NavigationConfig) -> None:
    """Trains, judges, draws, and writes result.json and report.md."""
    started = time.perf_counter()
    with errors_as_messages():
        use_cpu_devices(config.devices)
        devices = local_devices(config.devices)
        with open_run(config.run_folder, training_settings(config)):
            policies = policies_of(config, devices)
            cells = cells_of(config, policies, devices)
            paths = figures_of(config, policies, cells)
            rates = {row: [seeds[0].rate, seeds[0].later] for row, seeds in policies.items()}
            sizes = ", ".join(f"{row_label(row)} {rate:g} and {later:g}" for row, (rate, later) in rates.items())
            write_report(
                config.run_folder,
                Report(cells, paths, [f"Step sizes of the first and of later updates: {sizes}"]),
                name="navigation",
                command=command_line("experiments.navigation"),
                config={**settings_of(config), "step_sizes": rates},
                protocol=f"point navigation: mean return (negative {config.reward.replace('_', ' ')}, at most 100 "
                f"steps) on {config.goals} new goals a seed, {config.test_trajectories} episodes for each update",
                seeds=list(range(config.seed, config.seed + config.seeds)),
                wall_clock_s=time.perf_counter() - started,
            )


if __name__ == "__main__":
    main(parse(NavigationConfig, __doc__))
