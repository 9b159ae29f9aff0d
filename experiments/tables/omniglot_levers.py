"""What each lever gives label-free features on Omniglot: one change at a time, judged on the validation classes.

    python -m experiments.tables.omniglot_levers --data.data-dir DIR
    python -m experiments.tables.omniglot_levers --merge runs/tables/omniglot_levers

The row ``base`` is SimCLR on handwriting views, without turned images. Every other row changes one thing of it, in
training or at test; the last ones add rounds of clusters, one after the other, and combine them with other changes.
Vinyals' 172 validation classes without rotations, so that no choice is made on the test classes; nearest prototype by
cosine on whitened features. The time of a training that rows share counts to the first of them.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from experiments.tables.engine import Budget, OmniglotConfig, Table, table_main
from experiments.tables.omniglot_objectives import BATCH, CONV4, ROUND_STEPS, fit_of, stage_one, tasks
from experiments.tables.omniglot_unsupervised import TRAINED
from experiments.tables.published import COLUMNS
from metarep_jax.data.tasks.pseudo_tasks import TaskConfig
from metarep_jax.encoders import EncoderConfig
from metarep_jax.model import Model
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.report.figures import save_gains
from metarep_jax.report.pieces import Judged, Piece, each_seed
from metarep_jax.stages import Compute, EvaluateSettings, PretrainSettings, RoundsSettings, pretrain, rounds
from metarep_jax.stages.evaluate import few_shot_columns
from metarep_jax.stages.features import features_model, features_spec
from metarep_jax.stages.projector import projector_features
from metarep_jax.stages.self_distil import self_distil

VIEWS = 32  # over which the features of a teacher are averaged
STEPS: dict[Budget, int] = {"trial": 4, "short": 1500, "full": 128_000}


@dataclasses.dataclass(frozen=True)
class Lever:
    """A row: a training run, perhaps shared with other rows, and how its features are used."""

    note: str
    pretrain: PretrainSettings
    encoder: EncoderConfig = CONV4
    training: str = "base"  # names the run of stage 1; rows that share it train alike
    rounds: RoundsSettings | None = None
    series: str = ""  # names the rounds that rows share
    projector: bool = False  # whether its outputs are judged, and not the encoder's
    distilled: bool = False  # whether a new encoder learns the features, averaged over views, for as many steps
    after: int = 0  # rounds whose features are judged
    whiten: float = 0.25
    views: int = 0  # averaged over at test
    ms: float = 90.0  # of a step of stage 1 on two CPU cores; an estimate

    @property
    def settings(self) -> dict[str, Any]:
        """All that its numbers depend on."""
        return {name: value for name, value in vars(self).items() if name not in ("note", "ms")}


def levers(budget: Budget) -> dict[str, Lever]:
    """All rows, in the table's order."""
    steps = STEPS[budget]
    simclr = ObjectiveConfig(name="simclr")
    base = dataclasses.replace(stage_one(simclr, budget), rotations=False, train=fit_of(steps, BATCH))

    def trained(training: str, note: str, encoder: EncoderConfig = CONV4, ms: float = 90.0, **changed: Any) -> Lever:
        return Lever(note, dataclasses.replace(base, **changed), encoder, training=training, ms=ms)

    def objective(training: str, note: str, **changed: Any) -> Lever:
        return trained(training, note, objective=dataclasses.replace(simclr, **changed))

    def used(note: str, **changed: Any) -> Lever:
        return Lever(note, base, **changed)

    def rounds(clusters: TaskConfig, count: int) -> RoundsSettings:
        return RoundsSettings(rounds=count, meta=tasks(clusters, budget, ROUND_STEPS[budget]))

    dense = rounds(TaskConfig("clusters", clustering="dense", partitions=1), 3)
    means = rounds(TaskConfig("clusters", clusters=1000, partitions=1), 1)
    pooled = trained("pooled", "max-pooling for strides", dataclasses.replace(CONV4, downsample="pool"), ms=330.0)
    once_more = used("another round", rounds=dense, series="dense")
    return {
        "base": used(f"SimCLR at temperature 0.1 on handwriting views, {steps:,} steps; half-whitened"),
        "temperature_0.2": objective("temperature_0.2", "temperature 0.2", temperature=0.2),
        "temperature_0.05": objective("temperature_0.05", "temperature 0.05", temperature=0.05),
        "weaker_views": trained("weaker_views", "views that are only nudged", augment="nudge"),
        "wider_views": trained("wider_views", "more rotation and shear, less elastic", augment="glyph"),
        "strokes": trained("strokes", "thicker and thinner strokes too", augment="handwriting-strokes"),
        "turned_images": trained("turned_images", "quarter turns as images of their own", rotations=True),
        "batch_512": trained("batch_512", "512 images, half the steps", train=fit_of(steps // 2, 2 * BATCH), ms=180.0),
        "queue": objective("queue", "MoCo v2: a slow encoder, a queue of 4,096", name="moco", temperature=0.1),
        "neighbours": trained(
            "neighbours",
            "mutual nearest neighbours as partners too, in the second half",
            neighbours=5,
            neighbours_after=steps // 2,
            train=dataclasses.replace(base.train, refresh_every=max(steps // 8, 1)),
        ),
        "pooled": pooled,
        "width_128": trained("width_128", "twice the channels", dataclasses.replace(CONV4, width=128), ms=290.0),
        "averaged_weights": trained(
            "averaged_weights", "average of the weights", train=dataclasses.replace(base.train, average_decay=0.995)
        ),
        "projector_kept": used("the projector's outputs as features", projector=True),
        "centred_only": used("not whitened", whiten=0.0),
        "less_whitened": used("whitened by the power 0.1", whiten=0.1),
        "fully_whitened": used("fully whitened", whiten=0.5),
        "views_8": used("features averaged over 8 views at test", views=8),
        "views_32": used("features averaged over 32 views at test", views=32),
        "self_distilled": used("a new encoder learns these features, averaged over 32 views", distilled=True),
        "k_means_round": used("one round on clusters by k-means", rounds=means, series="means", after=1),
        "round_1": dataclasses.replace(once_more, note="one round on clusters of k-reciprocal neighbours", after=1),
        "round_2": dataclasses.replace(once_more, after=2),
        "round_3": dataclasses.replace(once_more, after=3),
        "round_3_less_whitened": dataclasses.replace(once_more, note="whitened by the power 0.1", after=3, whiten=0.1),
        "round_3_views_32": dataclasses.replace(once_more, note="and averaged over 32 views", after=3, views=32),
        "pooled_round": dataclasses.replace(
            pooled,
            note="max-pooling, a round on clusters of k-reciprocal neighbours, whitened by the power 0.1",
            rounds=rounds(TaskConfig("clusters", clustering="dense", partitions=1), 1),
            series="pooled",
            after=1,
            whiten=0.1,
        ),
    }  # fmt: skip


TABLE = Table(
    "omniglot_levers",
    "Omniglot without labels, Vinyals' 172 validation classes, 15 queries a class, no rotations",
    tuple(levers("short")),
    ("omniglot",),
    figure=partial(save_gains, base="base"),
)


def pieces_of(config: OmniglotConfig) -> list[Piece]:
    """The rows, in the table's order."""
    pieces, known = [], set()
    for name, lever in levers(config.budget).items():
        steps = lever.pretrain.train.steps
        new = [what for what in (lever.training, lever.series) if what and what not in known]
        known |= {*new}
        minutes = 0.5 + (steps * lever.ms / 60_000 if lever.training in new else 0.0)
        if lever.distilled:
            minutes += steps * lever.ms / 60_000
        if lever.rounds and lever.series in new:
            ms = 1.3 * lever.ms  # a step of tasks passes 720 images, one of stage 1 512 views
            minutes += lever.rounds.rounds * lever.rounds.meta.train.steps * ms / 60_000
        pieces.append(
            Piece(
                row=name,
                columns=COLUMNS[TABLE.name],
                protocol=TABLE.protocol,
                settings=config.settings(steps, lever=lever.settings),
                train=partial(train, config, lever),
                judge=each_seed(partial(judge, config, lever)),
                steps=steps,
                minutes=minutes,
                shown={"note": lever.note},
                check=partial(config.splits, TRAINED),
            )
        )
    return pieces


def train(config: OmniglotConfig, lever: Lever, folder: Path, seed: int) -> tuple[Model, Any]:
    """What the row stands on, trained or already there: a model, and where it is not the model's encoder, what gives
    its features."""
    splits, trainings, settings = config.splits(TRAINED), folder.parent.parent / "trainings", lever.pretrain

    def compute_of(name: str, batch: int) -> Compute:
        return config.compute(trainings / name / f"seed{seed}", seed, batch)

    compute = compute_of(lever.training, settings.train.batch_size)
    model = pretrain(settings, splits, compute, encoder=lever.encoder)
    embed = projector_features(settings, lever.encoder, splits, compute) if lever.projector else None
    if lever.distilled:
        compute = compute_of("self_distilled", settings.train.batch_size)
        model = self_distil(settings, lever.encoder, model, splits, compute, views=VIEWS)
    if lever.rounds is not None:
        compute = compute_of(f"rounds_{lever.series}", lever.rounds.meta.train.batch_size)
        model = rounds(lever.rounds, splits, model, compute)[lever.after - 1]
    return features_model(features_spec(lever.encoder, splits), model.encoder_params, splits, lever.whiten), embed


def judge(config: OmniglotConfig, lever: Lever, trained: tuple[Model, Any], seed: int) -> Judged:
    """Accuracy on the validation classes."""
    (model, embed), splits = trained, config.splits(TRAINED)
    compute = config.compute(config.folder(TABLE.name), seed, BATCH)
    specs = [spec for spec in EvaluateSettings().specs(splits.protocol, splits.val) if spec.name in COLUMNS[TABLE.name]]
    episodes = config.episodes or splits.protocol.episodes
    return Judged(
        few_shot_columns(model, splits, specs, compute, part="val", episodes=episodes, views=lever.views, embed=embed)
    )


if __name__ == "__main__":
    table_main(TABLE, OmniglotConfig, pieces_of, __doc__)
