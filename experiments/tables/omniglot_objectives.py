"""The rows of Omniglot's table without labels: how each objective is trained there.

"short" is for two CPU cores: one to a few thousand steps of 256 images a row, the best row apart, which takes hours.
"full" is for a GPU and as long as PsCo trained (about 128,000 steps).
"""

import dataclasses
from typing import Any

from experiments.tables.engine import Budget
from metarep_jax.data.tasks.pseudo_tasks import TaskConfig
from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.stages import MetatrainSettings, PretrainSettings, RoundsSettings
from metarep_jax.stages.rounds import WHITEN_AFTER
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import EpisodeSpec

BATCH = 256
STEPS: dict[Budget, int] = {"trial": 4, "short": 2500, "full": 128_000}
BEST_STEPS: dict[Budget, int] = {"trial": 6, "short": 6000, "full": 40_000}
ROUND_STEPS: dict[Budget, int] = {"trial": 4, "short": 1000, "full": 10_000}
ROUNDS = 4  # of the best row
CONV4 = EncoderConfig(name="conv4", width=64)
# Pixels with mean 0 and deviation 1: as they are, MAE's loss stayed at that of the mean image for 500 steps.
TRANSFORMER = EncoderConfig(name="vit", width=128, depth=4, patch=4, mean=0.08, std=0.24)
PATCHES = EncoderConfig(name="patches", width=64, patch=8, readout="moments")
MOMENTUM: dict[Budget, float] = {"trial": 0.95, "short": 0.95, "full": 0.99}  # of teachers, where it starts
# First steps, in which prototypes stay: an epoch, or as large a share.
FROZEN: dict[Budget, int] = {"trial": 1, "short": 80, "full": 4000}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a row's features are made: stage 1; or by tasks, from initial weights, after stage 1 those that its features
    find; then in rounds."""

    note: str
    encoder: EncoderConfig = CONV4
    pretrain: PretrainSettings | None = None
    meta: MetatrainSettings | None = None
    rounds: RoundsSettings | None = None
    ms: float = 100.0  # of a step of stage 1, and of a step of tasks, on two CPU cores; estimates

    @property
    def steps(self) -> int:
        """Of all stages together."""
        rounds = self.rounds.rounds * self.rounds.meta.train.steps if self.rounds else 0
        return sum(each.train.steps for each in (self.pretrain, self.meta) if each) + rounds

    @property
    def settings(self) -> dict[str, Any]:
        """All that its numbers depend on."""
        parts = ("encoder", "pretrain", "meta", "rounds")
        return {part: getattr(self, part) for part in parts}


def recipes(budget: Budget) -> dict[str, Recipe]:
    """All rows, in the table's order."""

    def objective(
        name: str,
        note: str,
        encoder: EncoderConfig = CONV4,
        ms: float = 100.0,
        rate: float = 4e-3,
        decay: float = 1e-4,
        length: float = 1.0,
        batch: int = BATCH,
        **settings: Any,
    ) -> Recipe:
        stage = stage_one(ObjectiveConfig(name=name, **settings), budget, rate, decay)
        if budget == "short":
            stage = dataclasses.replace(stage, train=fit_of(round(length * STEPS[budget]), batch))
        return Recipe(note, encoder, stage, ms=ms)

    no_views = "no views"
    views = "handwriting views"
    return {
        "untrained": Recipe("initial weights"),
        "untrained_transformer": Recipe("initial weights of the masked autoencoder's encoder", TRANSFORMER),
        "untrained_patches": Recipe("initial weights of CPC's encoder", PATCHES),
        "autoencoder": objective("autoencoder", no_views, ms=220.0, length=0.4),
        "denoising_autoencoder": objective(
            "denoising_autoencoder", f"{no_views}; a quarter of the pixels dropped", ms=220.0, length=0.4
        ),
        "vae": objective("vae", f"{no_views}; Bernoulli pixels", ms=220.0, length=0.4),
        "mae": objective(
            "mae",
            f"{no_views}; Transformer, 4 blocks of width 128, patches of 4 pixels, 60% left out",
            TRANSFORMER,
            ms=150.0,
            rate=2e-3,
            decay=0.05,
            length=2.4,
            batch=64,
            mask_ratio=0.6,
            normalise=False,
        ),
        "cpc": objective(
            "cpc",
            f"{no_views}; patches of 8 pixels, every 4; predicts two to four rows below",
            PATCHES,
            ms=320.0,
            length=0.6,
            ahead=(12, 18, 24),
            negatives="across",
        ),
        "rotation": objective("rotation", f"predicts quarter turns; {views}", ms=160.0, length=0.6),
        "simclr": objective("simclr", views),
        "moco": objective("moco", f"{views}; a queue of 4,096"),
        "moco_v3": objective("moco_v3", views, decay=0.05, momentum=MOMENTUM[budget]),
        "byol": objective("byol", views, decay=0.05, momentum=MOMENTUM[budget]),
        "simsiam": objective("simsiam", views, rate=1e-3, decay=0.05),
        "barlow": objective("barlow", views),
        "vicreg": objective("vicreg", views),
        "dino": objective(
            "dino", views, rate=2e-3, decay=0.05, momentum=0.996, prototypes=256, out=32, freeze_steps=FROZEN[budget]
        ),
        "swav": objective(
            "swav", views, rate=1e-3, prototypes=128, epsilon=0.03, freeze_steps=FROZEN[budget]
        ),
        "psco": objective("psco", f"{views}; a queue of 4,096"),
        "umtra": Recipe(
            f"Prototypical Networks on tasks from images, quarter turns for others, and their {views}",
            meta=tasks(TaskConfig("augmentations"), budget),
        ),
        "cactus": Recipe(
            "Prototypical Networks on clusters of SimCLR's features, quarter turns for others",
            pretrain=stage_one(ObjectiveConfig(name="simclr"), budget),
            meta=tasks(TaskConfig("clusters", clusters=1000, partitions=1), budget),
        ),
        "best": best(budget),
        "supcon": objective("supcon", f"with labels; {views}, the second of another image of the class"),
        "prototypical": Recipe(
            "with labels, quarter turns for others; images shifted by whole pixels",
            meta=tasks(TaskConfig("labels"), budget),
        ),
    }  # fmt: skip


def stage_one(objective: ObjectiveConfig, budget: Budget, rate: float = 4e-3, decay: float = 1e-4) -> PretrainSettings:
    """Stage 1 of a row."""
    return PretrainSettings(
        objective=objective,
        augment="handwriting",
        rotations=budget == "full" and objective.name != "rotation",
        optimiser=OptimiserConfig(
            name="adamw",
            learning_rate=rate,
            weight_decay=decay,
            schedule="cosine",
            warmup_steps=0 if budget == "trial" else 100,
        ),
        train=fit_of(STEPS[budget], BATCH),
    )


def tasks(source: TaskConfig, budget: Budget, steps: int | None = None) -> MetatrainSettings:
    """Prototypical Networks on 60-way tasks, quarter turns as classes of their own."""
    return MetatrainSettings(
        learner=LearnerConfig(name="prototypical"),
        episode=EpisodeSpec(way=60, shot=1, query=5, rotations="classes"),
        tasks=source,
        augment="handwriting" if source.source == "augmentations" else "shift",
        optimiser=OptimiserConfig(
            name="adam", learning_rate=1e-2, schedule="cosine", warmup_steps=0 if budget == "trial" else 50
        ),
        train=fit_of(steps or STEPS[budget], 2),
    )


def best(budget: Budget) -> Recipe:
    """SimCLR with neighbours found anew, then tasks of clusters, in rounds."""
    steps = BEST_STEPS[budget]
    start = stage_one(ObjectiveConfig(name="simclr"), budget)
    start = dataclasses.replace(
        start,
        neighbours=5,
        neighbours_after=steps // 4,
        whiten=0.15,
        train=dataclasses.replace(start.train, steps=steps, refresh_every=max(steps // 24, 1)),
    )
    dense = TaskConfig("clusters", clustering="dense", partitions=1)
    return Recipe(
        f"SimCLR whose partners are mutual neighbours, {steps:,} steps; then {ROUNDS} rounds of Prototypical Networks "
        f"on clusters, quarter turns for others, {ROUND_STEPS[budget]:,} steps each",
        pretrain=start,
        rounds=RoundsSettings(rounds=ROUNDS, whiten_after=WHITEN_AFTER, meta=tasks(dense, budget, ROUND_STEPS[budget])),
    )


def fit_of(steps: int, batch: int) -> FitConfig:
    """The loop's settings; nothing is validated, since nothing is chosen."""
    return FitConfig(
        steps=steps,
        batch_size=batch,
        validate_every=steps,
        log_every=max(min(100, steps // 2), 1),
        checkpoint_every=max(min(steps // 2, 1000), 1),
        tensorboard=False,
    )
