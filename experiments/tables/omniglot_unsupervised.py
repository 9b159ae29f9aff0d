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

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import cattrs

from experiments.cli import parse
from experiments.tables.omniglot_objectives import BATCH, Recipe, recipes
from experiments.tables.published import COLUMNS
from experiments.tables.rows import OmniglotRowsConfig, Row, RowTable, main
from experiments.tables.runs import compute_in, splits_of
from metarep_jax.data import Splits
from metarep_jax.evaluate import Interval
from metarep_jax.model import Model
from metarep_jax.stages import Compute, EvaluateSettings, metatrain, pretrain, rounds
from metarep_jax.stages.evaluate import few_shot_columns
from metarep_jax.stages.features import features_model, features_spec, untrained_model

TABLE = RowTable(
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


def rows_of(config: OmniglotRowsConfig) -> list[Row]:
    """The rows, in the table's order."""
    return [
        Row(
            name=name,
            columns=COLUMNS[TABLE.name],
            protocol=TABLE.protocol,
            settings={
                "budget": config.budget,
                "data": config.data.name,
                "recipe": cattrs.unstructure(told(recipe)),
                "episodes": config.episodes,
                "precision": config.precision,
                "steps": recipe.steps,
            },
            measure=partial(measure, config, recipe),
            steps=recipe.steps,
            minutes=1.5 + recipe.steps * recipe.ms / 60_000,
            shown={"protocol": "vinyals", "norm": "running", "note": recipe.note},
        )
        for name, recipe in recipes(config.budget).items()
    ]


def measure(config: OmniglotRowsConfig, recipe: Recipe, folder: Path, seed: int) -> dict[str, Interval]:
    """Trains a row, or goes on, and judges it under both protocols."""

    compute = compute_in(folder, config, seed=seed, batch=smallest_batch(recipe))
    model = trained(recipe, splits_of(config.data, TRAINED), compute)
    columns = {}
    for protocol, prefix in PROTOCOLS.items():
        splits = splits_of(config.data, protocol)
        specs = EvaluateSettings().specs(splits.protocol, splits.test)
        episodes = config.episodes or splits.protocol.episodes
        judged = few_shot_columns(model, splits, specs, compute, episodes=episodes, views=recipe.views)
        columns |= {f"{prefix}{column}": value for column, value in judged.items()}
    return columns


def told(recipe: Recipe) -> Recipe:
    """The recipe without what changes no number."""
    return dataclasses.replace(recipe, ms=0.0, note="")


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
    settings = parse(OmniglotRowsConfig, __doc__)
    main(TABLE, settings, partial(rows_of, settings))
