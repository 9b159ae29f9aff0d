"""The table of few-shot learning on Omniglot without labels: every objective, and the best that there is here.

    python -m experiments.tables.omniglot_unsupervised --plan
    python -m experiments.tables.omniglot_unsupervised --rows simclr byol --minutes 30
    python -m experiments.tables.omniglot_unsupervised --rows best --seeds 3
    python -m experiments.tables.omniglot_unsupervised --budget full             # on a GPU
    python -m experiments.tables.omniglot_unsupervised --merge runs/tables/omniglot_unsupervised OTHER_FOLDER

A row is one training run on Vinyals' training classes, without their labels but where a row says so, and 2,000 test
episodes a column: on the 423 test classes, and (``rotations_``) on them with each quarter turn a class of its own, as
the published numbers have it. Features are frozen, their norms and whitening fitted on training images, and classified
by the nearest prototype (cosine). The last parameters are judged. Finished rows are skipped and interrupted ones go on.
"""

from functools import partial
from pathlib import Path
from typing import Any

from experiments.tables.engine import OmniglotConfig, Table, table_main
from experiments.tables.omniglot_objectives import BATCH, Recipe, recipes
from experiments.tables.published import COLUMNS
from metarep_jax.data import Splits
from metarep_jax.model import Model
from metarep_jax.report.pieces import Judged, Piece, each_seed
from metarep_jax.stages import Compute, EvaluateSettings, metatrain, pretrain, rounds
from metarep_jax.stages.evaluate import few_shot_columns
from metarep_jax.stages.features import features_model, features_spec, untrained_model

TABLE = Table(
    "omniglot_unsupervised",
    "Omniglot without labels, Vinyals' 1028/172/423 classes, 15 queries a class; with rotations: each quarter turn a "
    "class of its own at test; objectives train on upright images (of the full budget: on turned ones too), tasks take "
    "quarter turns for classes of their own",
    tuple(recipes("short")),
    ("omniglot",),
)
PROTOCOLS = {"vinyals-no-rotations": "", "vinyals": "rotations_"}  # and how their columns begin
TRAINED = "vinyals-no-rotations"  # the protocol of training; a recipe may still take turned images for others
WHITEN = 0.25  # of rows without stage 1


def pieces_of(config: OmniglotConfig) -> list[Piece]:
    """The rows, in the table's order."""
    return [
        Piece(
            row=name,
            columns=COLUMNS[TABLE.name],
            protocol=TABLE.protocol,
            settings=config.settings(recipe.steps, recipe=recipe.settings),
            train=partial(train, config, recipe),
            judge=each_seed(partial(judge, config, recipe)),
            steps=recipe.steps,
            minutes=1.5 + recipe.steps * recipe.ms / 60_000,
            shown={"protocol": "vinyals", "norm": "running", "note": recipe.note},
            check=partial(config.splits, TRAINED),
        )
        for name, recipe in recipes(config.budget).items()
    ]


def train(config: OmniglotConfig, recipe: Recipe, folder: Path, seed: int) -> Model:
    """Trains a row, or goes on."""
    return trained(recipe, config.splits(TRAINED), config.compute(folder, seed, smallest_batch(recipe)))


def judge(config: OmniglotConfig, recipe: Recipe, model: Model, seed: int) -> Judged:
    """The row's accuracy under both protocols."""
    compute = config.compute(config.folder(TABLE.name), seed, smallest_batch(recipe))
    columns = {}
    for protocol, prefix in PROTOCOLS.items():
        splits = config.splits(protocol)
        specs = EvaluateSettings().specs(splits.protocol, splits.test)
        episodes = config.episodes or splits.protocol.episodes
        judged = few_shot_columns(model, splits, specs, compute, episodes=episodes)
        columns |= {f"{prefix}{column}": value for column, value in judged.items()}
    return Judged(columns)


def trained(recipe: Recipe, splits: Splits, compute: Compute) -> Model:
    """A row's features as a nearest-prototype model."""
    model, whiten = None, recipe.pretrain.whiten if recipe.pretrain else WHITEN
    if recipe.pretrain is not None:
        model = pretrain(recipe.pretrain, splits, compute.below("pretrain"), encoder=recipe.encoder)
    if recipe.meta is not None:
        embed = model.embed if model else None
        tasks = metatrain(recipe.meta, splits, compute.below("tasks"), encoder=recipe.encoder, embed=embed)
        model = features_model(features_spec(recipe.encoder, splits), tasks.encoder_params, splits, whiten)
    model = model or untrained_model(recipe.encoder, splits, compute, whiten)
    return rounds(recipe.rounds, splits, model, compute)[-1] if recipe.rounds else model


def smallest_batch(recipe: Recipe) -> int:
    """What the devices must divide in every stage."""
    stages: list[Any] = [recipe.pretrain, recipe.meta, recipe.rounds.meta if recipe.rounds else None]
    return min([each.train.batch_size for each in stages if each], default=BATCH)


if __name__ == "__main__":
    table_main(TABLE, OmniglotConfig, pieces_of, __doc__)
