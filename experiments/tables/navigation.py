"""Reinforcement learning: a point learns to find goals that it does not see, and to do so after one update.

    python -m experiments.tables.navigation            # three seeds, minutes on 2 CPU cores
    python -m experiments.tables.navigation --plan
    python -m experiments.tables.navigation --merge runs/tables/navigation

Three policies adapt to new goals by policy gradient: one trained by MAML, one trained over all goals without adapting,
and one with random weights. Columns: the mean return after 0 to 3 updates. The two that were not trained to adapt take
the step size that serves them best on other goals. Once all is there, RUN_FOLDER/BUDGET/figures shows returns by
updates, the paths of some episodes and the course of training.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cattrs
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.cli import parse
from experiments.tables.engine import Table, TableConfig, run_table
from experiments.tables.published import COLUMNS
from metarep_jax.data.environments import environment_feed, task_of
from metarep_jax.data.navigation_environment import NavigationParameters, navigation
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate import interval
from metarep_jax.evaluate.paths import paths_to_goals
from metarep_jax.evaluate.returns import returns_by_updates
from metarep_jax.evaluate.step_sizes import Judge, Policy, choose_step_sizes
from metarep_jax.metalearn.policy_gradient import policy_gradient
from metarep_jax.report.figures import save_learning_curves, save_lines, save_paths
from metarep_jax.report.pieces import Judged, Piece
from metarep_jax.report.results import read_result
from metarep_jax.train import (
    FitConfig,
    OptimiserConfig,
    dividing_devices,
    fit,
    local_devices,
    map_over_keys,
    meta_learning,
    open_run,
)
from metarep_jax.train.step import make_roots
from metarep_jax.types import EpisodeSpec, MetaLearner

TABLE = "navigation"
UPDATES = 3
ENVIRONMENT = navigation(reward="distance")  # as in the original's code
ENCODER = MLP(widths=(100, 100), norm="none")
INNER_LR = 0.5  # MAML's first step size
OPTIMISER = OptimiserConfig(name="adam", learning_rate=1e-2, schedule="cosine")
STEPS = {"trial": 2, "short": 300, "full": 500}
TASKS, TRAJECTORIES = 20, 20  # of a training step; for each update in training, and after it
RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # step sizes that are tried
CHOICE_GOALS = 20  # by which step sizes are chosen
GOALS = ((0.4, 0.3), (-0.35, 0.4), (-0.2, -0.45), (0.45, -0.15))  # of the figure of paths
STAGES = {"before": 0, "after 1 update": 1}
SHOWN_EPISODES = 6
TEST, CHOICE, PATHS = range(3)  # streams of randomness
MINUTES = {"maml": 1.5, "pretrained_on_all_goals": 1.0, "random_weights": 0.2}  # a seed's training, short
INNER_STEPS = {"maml": 1, "pretrained_on_all_goals": 0}  # of the rows that are trained
TITLE = "Return on new goals, mean of an episode"


@dataclasses.dataclass(frozen=True)
class NavigationConfig(TableConfig):
    """Flags of experiments.tables.navigation."""

    seeds: int = 3
    """Training runs a row, of seeds 0 to N-1."""
    goals: int = 100
    """Goals of the test. Step sizes are chosen on 20 others a seed."""
    test_trajectories: int = 40
    """Episodes for each update at test, as in the paper."""

    def __post_init__(self):
        super().__post_init__()
        for field in ("goals", "test_trajectories"):
            if getattr(self, field) < 1:
                raise ValueError(f"--{field.replace('_', '-')} must be at least 1, got {getattr(self, field)}")

    @property
    def train(self) -> FitConfig:
        """Of the policies that are trained; a batch is of tasks."""
        steps = STEPS[self.budget]
        return FitConfig(
            steps=steps, batch_size=TASKS, log_every=min(10, steps), checkpoint_every=50, tensorboard=False
        )


def learner_of(rate: float | Array, later: float | Array | None = None, inner_steps: int = 1) -> MetaLearner:
    """MAML's policy gradient; with 0 inner steps, a policy for all goals at once."""
    return policy_gradient(ENCODER, ENVIRONMENT, inner_lr=rate, later_lr=later, inner_steps=inner_steps, least_std=0.2)


def train(config: NavigationConfig, row: str, folder: Path, seed: int) -> tuple[Any, Any]:
    """Parameters and state after training, or the random weights that the trained policies of this seed start from."""
    if row not in INNER_STEPS:
        task = task_of(NavigationParameters(jnp.zeros(2)), EpisodeSpec(way=1))
        return jax.jit(learner_of(INNER_LR).init)(make_roots((seed,)).init, task)
    spec = EpisodeSpec(way=1, shot=TRAJECTORIES, query=TRAJECTORIES)
    settings = settings_of(config)
    with open_run(folder, settings):
        fitted = fit(
            meta_learning(learner_of(INNER_LR, inner_steps=INNER_STEPS[row]), spec),
            environment_feed(ENVIRONMENT, spec, TASKS),
            optimiser=OPTIMISER,
            config=config.train,
            seed=seed,
            folder=folder,
            description=f"{row}, seed {seed}",
            settings=settings,
            devices=dividing_devices(local_devices(config.devices), TASKS),
        )
    return fitted.params, fitted.state


def settings_of(config: NavigationConfig) -> dict[str, Any]:
    """What the trained policies depend on."""
    own = {"trajectories": TRAJECTORIES, "inner_lr": INNER_LR, "least_std": 0.2}
    return {"data": TABLE, **own, "optimiser": cattrs.unstructure(OPTIMISER), "train": cattrs.unstructure(config.train)}


def judge_on(config: NavigationConfig, stream: int, goals: int) -> Judge:
    """``(policy, seed) -> returns [goals, updates + 1]``: on so many goals of the stream, other ones for each seed."""

    def one(key: Array, params: Any, state: Any, rate: Array, later: Array) -> Array:
        return returns_by_updates(
            learner_of(rate, later), params, state, ENVIRONMENT, key,
            updates=UPDATES, trajectories=config.test_trajectories,
        )  # fmt: skip

    def judge(policy: Policy, seed: int) -> np.ndarray:
        keys = jax.random.split(jax.random.fold_in(key_of(stream), seed), goals)
        rates = jnp.float32(policy.rate), jnp.float32(policy.later)
        devices = local_devices(config.devices)
        return np.asarray(map_over_keys(one, keys, policy.params, policy.state, *rates, devices=devices))

    return judge


def key_of(stream: int) -> Array:
    """A key for one purpose."""
    return jax.random.fold_in(jax.random.key(0), stream)


def judge_row(config: NavigationConfig, row: str, weights: Sequence[Any]) -> list[Judged]:
    """Mean returns on test goals, of all seeds with the step sizes that serve them best together."""
    choice, first = judge_on(config, CHOICE, CHOICE_GOALS), INNER_LR if row == "maml" else None
    rates = choose_step_sizes(choice, weights, RATES, what=row, first=first)
    judge, judged = judge_on(config, TEST, config.goals), []
    for seed, (params, state) in enumerate(weights):
        returns = judge(Policy(params, state, *rates), seed)
        columns = {column: interval(returns[:, k]) for k, column in enumerate(COLUMNS[TABLE])}
        note = "step sizes of the first and of later updates: {:g} and {:g}".format(*rates)
        judged.append(Judged(columns, {"note": note, "step_sizes": list(rates)}))
    return judged


def pieces_of(config: NavigationConfig) -> list[Piece]:
    """The rows, in the table's order."""
    test = {"rates": RATES, "goals": config.goals, "test_trajectories": config.test_trajectories}
    steps = dict.fromkeys(INNER_STEPS, config.train.steps)
    return [
        Piece(
            row=row,
            columns=COLUMNS[TABLE],
            protocol=f"point navigation: mean return (negative distance, at most 100 steps) on {config.goals} new "
            f"goals a seed, {config.test_trajectories} episodes for each update",
            settings={"steps": steps.get(row, 0), "seeds": config.seeds, **settings_of(config), **test},
            train=partial(train, config, row),
            judge=partial(judge_row, config, row),
            steps=steps.get(row, 0),
            minutes=MINUTES[row] * max(steps.get(row, 0) / 300, 0.1) + 0.8,
            shown={"protocol": "Finn et al. 2017, section 5.3", "tasks": TASKS if row in steps else "–"},
        )
        for row in MINUTES
    ]


def draw(config: NavigationConfig, folder: Path) -> list[Path]:
    """Draws the returns, the first seed's paths, and the course of its training."""
    table = read_result(folder / "table.json")
    paths = [folder / "figures" / f"{name}.png" for name in ("returns", "paths", "curves")]
    save_lines(paths[0], table.cells, title=TITLE, xlabel="updates by policy gradient")
    rows = {}
    places = {row: folder / row / "seed0" for row in INNER_STEPS if row in table.cells}
    for row, place in places.items():
        rate, _ = table.config["cells"][row][COLUMNS[TABLE][0]]["step_sizes"]
        walk = partial(
            paths_to_goals, learner_of(rate), *train(config, row, place, 0), jnp.array(GOALS), key_of(PATHS),
            trajectories=config.test_trajectories, episodes=SHOWN_EPISODES,
        )  # fmt: skip
        by_stage = {stage: walk(updates=updates) for stage, updates in STAGES.items()}
        rows[row] = [{stage: each[k] for stage, each in by_stage.items()} for k in range(len(GOALS))]
    if not rows:
        return paths[:1]
    save_paths(paths[1], rows, np.array(GOALS))
    save_learning_curves(paths[2], {row: place / "metrics.jsonl" for row, place in places.items()})
    return paths


def main(args: list[str] | None = None) -> None:
    """Plans, computes, or merges."""
    config = parse(NavigationConfig, __doc__, args=args)
    protocol = pieces_of(config)[0].protocol
    table = Table(TABLE, protocol, tuple(MINUTES), (TABLE,), pictures=partial(draw, config))
    run_table(table, config, lambda: pieces_of(config))


if __name__ == "__main__":
    main()
