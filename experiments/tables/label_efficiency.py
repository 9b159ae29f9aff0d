"""What stage 1 buys: few-shot accuracy against the number of labelled training classes, with and without pretraining.

    python -m experiments.tables.label_efficiency --data.data-dir DIR    # by its own estimate 48 minutes on 2 CPU cores
    python -m experiments.tables.label_efficiency --merge runs/tables/label_efficiency

Omniglot, Vinyals' split without rotations. Rows: Prototypical Networks from scratch, and from an encoder that was
pretrained on all training images without labels. Columns: how many training classes had labels, drawn at random by the
seed; the smaller sets lie in the larger ones. Tasks take quarter turns of a class for classes of their own. Both rows
train alike and keep the best of their checkpoints by 5-way 1-shot episodes of the validation classes, the features
before stage 2 among them; with 0 classes there is no stage 2.
"""

import dataclasses
from functools import partial
from pathlib import Path

from experiments.tables.engine import Budget, OmniglotConfig, Table, table_main
from experiments.tables.omniglot_objectives import CONV4, best, fit_of
from experiments.tables.published import COLUMNS
from metarep_jax.data import Splits, with_labelled_classes
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model
from metarep_jax.report.figures import save_lines
from metarep_jax.report.pieces import Judged, Piece, each_seed
from metarep_jax.stages import Compute, MetatrainSettings, PretrainSettings, metatrain, pretrain
from metarep_jax.stages.evaluate import few_shot_columns
from metarep_jax.stages.features import features_model, features_spec, untrained_model
from metarep_jax.train import OptimiserConfig
from metarep_jax.types import EpisodeSpec

PROTOCOL_NAME = "vinyals-no-rotations"
WHITEN = 0.25  # power of the whitening of features
TABLE = Table(
    "label_efficiency",
    "Omniglot, Vinyals' split without rotations, 5-way 1-shot accuracy on the 423 test classes, by the number of "
    "training classes that had labels; tasks take quarter turns for classes of their own",
    ("from_scratch", "pretrained_first"),
    ("omniglot",),
    figure=partial(
        save_lines,
        title="5-way 1-shot accuracy on unseen characters, %",
        xlabel="training classes that had labels",
        by_errors=True,
    ),
)
JUDGED = EpisodeSpec(5, 1, 15)
STEPS: dict[Budget, int] = {"trial": 4, "short": 1500, "full": 20_000}


def classes_of(column: str) -> int:
    """``103 classes`` → 103."""
    return int(column.split()[0])


def pretraining(budget: Budget) -> PretrainSettings:
    """Stage 1: as in the best row of the table without labels, for a shorter time."""
    settings = best(budget).pretrain
    assert settings is not None
    steps = {"trial": 4, "short": 8000, "full": settings.train.steps}[budget]
    train = dataclasses.replace(fit_of(steps, settings.train.batch_size), refresh_every=max(steps // 8, 1))
    return dataclasses.replace(settings, neighbours_after=steps // 3, train=train)


def training(budget: Budget, classes: int) -> MetatrainSettings:
    """Stage 2 on so many labelled classes; with few of them tasks have fewer ways."""
    steps = STEPS[budget]
    return MetatrainSettings(
        learner=LearnerConfig(name="prototypical"),
        episode=EpisodeSpec(way=min(60, 4 * classes), shot=1, query=5, rotations="classes"),
        augment="shift",
        optimiser=OptimiserConfig(
            name="adam", learning_rate=1e-2, schedule="cosine", warmup_steps=0 if budget == "trial" else 50
        ),
        train=dataclasses.replace(fit_of(steps, 2), validate_every=max(steps // 5, 1)),
        validation_episodes=600,
    )


def pieces_of(config: OmniglotConfig) -> list[Piece]:
    """The rows, in the table's order."""
    columns, stage_one, steps = COLUMNS[TABLE.name], pretraining(config.budget), STEPS[config.budget]
    labelled = [training(config.budget, classes) for classes in map(classes_of, columns) if classes]
    pieces = []
    for name in TABLE.order:
        before = stage_one if name == "pretrained_first" else None
        minutes = (len(columns) - 1) * (0.7 + steps * 0.11 / 60) + (before.train.steps * 0.085 / 60 if before else 0)
        pieces.append(
            Piece(
                row=name,
                columns=columns,
                protocol=TABLE.protocol,
                settings=config.settings(steps, pretrain=before, training=labelled),
                train=partial(train, config, before),
                judge=each_seed(partial(judge, config)),
                steps=steps,
                minutes=minutes,
                shown={"tasks": 2, "note": f"stage 1 of {before.train.steps:,} steps" if before else "random weights"},
                check=partial(config.splits, PROTOCOL_NAME),
            )
        )
    return pieces


def train(config: OmniglotConfig, before: PretrainSettings | None, folder: Path, seed: int) -> dict[str, Model]:
    """A row trained on each number of labelled classes, by column."""
    splits, compute = config.splits(PROTOCOL_NAME), config.compute(folder / "start", seed, 2)
    start = None if before is None else pretrain(before, splits, compute, encoder=CONV4)
    model = start or untrained_model(CONV4, splits, compute, WHITEN)
    models = {}
    for column in COLUMNS[TABLE.name]:
        classes, models[column] = classes_of(column), model
        if classes:
            trained = metatrain(
                training(config.budget, classes),
                with_labelled_classes(splits, min(classes, splits.train.count.shape[0]), seed),
                config.compute(folder / f"{classes}", seed, 2),
                start=start,
                encoder=CONV4,
                validate_on=JUDGED,
                what=f"{classes} labelled classes",
            )
            frozen = features_model(features_spec(CONV4, splits), trained.encoder_params, splits, WHITEN)
            models[column] = max((model, trained, frozen), key=lambda each: validated(each, splits, compute))
    return models


def judge(config: OmniglotConfig, models: dict[str, Model], seed: int) -> Judged:
    """5-way 1-shot accuracy on the test classes."""
    splits, compute = config.splits(PROTOCOL_NAME), config.compute(config.folder(TABLE.name), seed, 2)
    episodes = config.episodes or splits.protocol.episodes
    each = {
        column: few_shot_columns(model, splits, [JUDGED], compute, episodes=episodes)
        for column, model in models.items()
    }
    return Judged({column: value[JUDGED.name] for column, value in each.items()})


def validated(model: Model, splits: Splits, compute: Compute) -> float:
    """Accuracy on the validation classes, by which a model is chosen."""
    return few_shot_columns(model, splits, [JUDGED], compute, part="val", episodes=1000)[JUDGED.name].mean


if __name__ == "__main__":
    table_main(TABLE, OmniglotConfig, pieces_of, __doc__)
