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

import jax.numpy as jnp
import numpy as np

from experiments.tables.engine import Table, TableConfig, table_main
from experiments.tables.published import COLUMNS
from metarep_jax.data.control.navigation_environment import navigation
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate import interval
from metarep_jax.evaluate.paths import paths_to_goals
from metarep_jax.report.figures import save_learning_curves, save_lines, save_paths
from metarep_jax.report.pieces import Judged, Piece
from metarep_jax.report.results import read_result
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.policies import (
    PATHS,
    PolicyFamily,
    PolicySettings,
    ReturnSettings,
    Weights,
    judge_policies,
    stream_key,
    train_policy,
    untrained_policy,
)
from metarep_jax.train import FitConfig, OptimiserConfig

TABLE = "navigation"
ENVIRONMENT = navigation(reward="distance")  # as in the original's code
ENCODER = MLP(widths=(100, 100), norm="none")
STEPS = {"trial": 2, "short": 300, "full": 500}
TASKS, TRAJECTORIES = 20, 20  # of a training step; for each update in training, and after it
INNER_LR, LEAST_STD = 0.5, 0.2  # MAML's first step size, and of actions
OPTIMISER = OptimiserConfig(name="adam", learning_rate=1e-2, schedule="cosine")
RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # step sizes that are tried
CHOICE_GOALS = 20  # by which step sizes are chosen
GOALS = ((0.4, 0.3), (-0.35, 0.4), (-0.2, -0.45), (0.45, -0.15))  # of the figure of paths
STAGES = {"before": 0, "after 1 update": 1}
SHOWN_EPISODES = 6
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
    def family(self) -> PolicyFamily:
        """The policies, before they are trained."""
        steps = STEPS[self.budget]
        train = FitConfig(
            steps=steps, batch_size=TASKS, log_every=min(10, steps), checkpoint_every=50, tensorboard=False
        )
        settings = PolicySettings(TRAJECTORIES, INNER_LR, LEAST_STD, OPTIMISER, train)
        return PolicyFamily(TABLE, ENVIRONMENT, ENCODER, settings)

    @property
    def test(self) -> ReturnSettings:
        """How they are judged."""
        return ReturnSettings(RATES, self.goals, CHOICE_GOALS, self.test_trajectories)


def train(config: NavigationConfig, row: str, folder: Path, seed: int) -> Weights:
    """A trained policy, or the random weights that the trained policies of this seed start from."""
    if row not in INNER_STEPS:
        return untrained_policy(config.family, seed)
    compute = config.compute(folder, seed, TASKS)
    return train_policy(config.family, compute, inner_steps=INNER_STEPS[row], what=f"{row}, seed {seed}")


def judge(config: NavigationConfig, row: str, weights: Sequence[Weights]) -> list[Judged]:
    """Mean returns on test goals, of all seeds with the step sizes that serve them best together."""
    family, compute = config.family, Compute(config.folder(TABLE), devices=config.devices)
    first = INNER_LR if row == "maml" else None
    returns, rates = judge_policies(family, weights, config.test, compute, first=first, what=row)
    shown = {
        "note": "step sizes of the first and of later updates: {:g} and {:g}".format(*rates),
        "step_sizes": list(rates),
    }
    return [
        Judged({column: interval(each[:, k]) for k, column in enumerate(COLUMNS[TABLE])}, shown) for each in returns
    ]


def pieces_of(config: NavigationConfig) -> list[Piece]:
    """The rows, in the table's order."""
    test = {"rates": RATES, "goals": config.goals, "test_trajectories": config.test_trajectories}
    steps = dict.fromkeys(INNER_STEPS, STEPS[config.budget])
    return [
        Piece(
            row=row,
            columns=COLUMNS[TABLE],
            protocol=f"point navigation: mean return (negative distance, at most 100 steps) on {config.goals} new "
            f"goals a seed, {config.test_trajectories} episodes for each update",
            settings={
                "steps": steps.get(row, 0),
                "seeds": config.seeds,
                **config.family.settings.identity(TABLE),
                **test,
            },
            train=partial(train, config, row),
            judge=partial(judge, config, row),
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
            paths_to_goals, config.family.learner(rate), *train(config, row, place, 0), jnp.array(GOALS),
            stream_key(PATHS), trajectories=config.test_trajectories, episodes=SHOWN_EPISODES,
        )  # fmt: skip
        by_stage = {stage: walk(updates=updates) for stage, updates in STAGES.items()}
        rows[row] = [{stage: each[k] for stage, each in by_stage.items()} for k in range(len(GOALS))]
    if not rows:
        return paths[:1]
    save_paths(paths[1], rows, np.array(GOALS))
    save_learning_curves(paths[2], {row: place / "metrics.jsonl" for row, place in places.items()})
    return paths


main = partial(
    table_main, Table(TABLE, "", tuple(MINUTES), (TABLE,), pictures=draw), NavigationConfig, pieces_of, __doc__
)

if __name__ == "__main__":
    main()
