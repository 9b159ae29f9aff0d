"""How a cell of the Omniglot table is made: its training, its test, and what both cost."""

import dataclasses
import re
from typing import Any, Literal

from experiments.tables.engine import Budget
from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.report.pieces import plain
from metarep_jax.stages import MetatrainSettings
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import EpisodeSpec, NormMode

TRIAL_STEPS, TRIAL_EPISODES = 4, 8  # of "trial": every cell from end to end, to see that it works
VALIDATIONS = 5  # of a training run
PAPERS_RATE, WARMUP = 1e-3, 50  # of the outer Adam; steps that warm up a higher rate
FORWARD_GFLOP = 5.3e-3  # matrix products of an image's pass through Conv4-64 of stride 2, 28×28
POOLED = 3.7  # times that with pooling, whose convolutions have stride 1
CPU_GFLOPS = 150.0  # measured on two cores of an EPYC; the estimates of minutes are for such a machine
COMPILING = 0.7  # minutes a training run


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one cell is made."""

    row: str
    column: str
    budget: Budget
    protocol: str
    encoder: EncoderConfig
    meta: MetatrainSettings
    test: EpisodeSpec  # rotations are the protocol's
    episodes: int
    training: str  # names the training run under its budget's folder; cells that share it must train alike
    validate_on: EpisodeSpec | None
    with_validation: bool = False  # train on training and validation classes, and keep the last parameters
    norm: NormMode | None = None  # at test; None: the protocol's, or else the learner's own
    note: str = ""
    train_gflop: float = 0.0  # of one step
    test_gflop: float = 0.0  # of one episode

    @property
    def train_minutes(self) -> float:
        """An estimate for two CPU cores."""
        return COMPILING + self.meta.train.steps * self.train_gflop / CPU_GFLOPS / 60

    @property
    def test_minutes(self) -> float:
        """An estimate for two CPU cores."""
        return 0.2 + self.episodes * self.test_gflop / CPU_GFLOPS / 60


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a method trains for a column: outer steps, tasks a step, and inner steps (None: the paper's)."""

    steps: int
    tasks: int
    inner_steps: int | None = None

    @classmethod
    def of(cls, columns: str, index: int) -> "Length":
        """Of ``3000×4×1 …``, for the column of that index."""
        return cls(*map(int, columns.split()[index].split("×")))


def way_and_shot(column: str) -> tuple[int, int]:
    """``20w5s`` → 20, 5."""
    found = re.fullmatch(r"(\d+)w(\d+)s", column)
    assert found is not None
    return int(found[1]), int(found[2])


def as_trial(made: Plan) -> Plan:
    """The plan with a few steps and episodes."""
    train = dataclasses.replace(made.meta.train, steps=TRIAL_STEPS, validate_every=TRIAL_STEPS // 2)
    optimiser = dataclasses.replace(made.meta.optimiser, warmup_steps=0)
    meta = dataclasses.replace(made.meta, train=train, optimiser=optimiser, validation_episodes=TRIAL_EPISODES)
    return dataclasses.replace(made, meta=meta, episodes=TRIAL_EPISODES)


def training_settings(
    learner: LearnerConfig, episode: EpisodeSpec, optimiser: OptimiserConfig, length: Length, augment: str = "none"
) -> MetatrainSettings:
    """The training's settings; what is shown while it runs is left to the caller."""
    every = max(length.steps // VALIDATIONS, 1)
    fit = FitConfig(
        steps=length.steps,
        batch_size=length.tasks,
        validate_every=every,
        log_every=min(100, every),
        checkpoint_every=max(min(every, 1000), 1),
        tensorboard=False,
    )
    return MetatrainSettings(learner=learner, episode=episode, augment=augment, optimiser=optimiser, train=fit)


def outer_adam(rate: float, schedule: Literal["constant", "cosine"]) -> OptimiserConfig:
    """The outer Adam; above the papers' rate it is warmed up."""
    warmup = WARMUP if rate > PAPERS_RATE else 0
    return OptimiserConfig(name="adam", learning_rate=rate, schedule=schedule, warmup_steps=warmup)


def helped(rate: float, augment: str) -> str:
    """What helps a short training, and no paper had."""
    faster = f", Adam's rate {rate:g} for {PAPERS_RATE:g}" if rate > PAPERS_RATE else ""
    return faster + (", training images shifted by whole pixels" if augment == "shift" else "")


def shorter(length: Length, paper: Length) -> str:
    """What a training does less of than the paper's, for the note."""
    tasks = "" if length.tasks == paper.tasks else f", {length.tasks} tasks a step for {paper.tasks}"
    return tasks if length.steps == paper.steps else f"{tasks}, {length.steps:,} steps for {paper.steps:,}"


def trainings(plans: list[Plan]) -> dict[str, list[Plan]]:
    """Plans by training run, the cheapest training first; those of one training in the table's order."""
    grouped: dict[str, list[Plan]] = {}
    for made in sorted(plans, key=lambda made: made.train_minutes):  # a stable sort
        grouped.setdefault(made.training, []).append(made)
    return grouped


def settings_of_training(made: Plan) -> dict[str, Any]:
    """What the trained parameters depend on, as plain values."""
    meta = made.meta
    return plain({
        "budget": made.budget,
        "protocol": made.protocol,
        "with_validation": made.with_validation,
        "encoder": made.encoder,
        "learner": meta.learner,
        "episode": meta.episode,
        "augment": meta.augment,
        "optimiser": meta.optimiser,
        "train": meta.train,
        "validation": {"episodes": meta.validation_episodes, "of": made.validate_on},
    })  # fmt: skip
