"""The three stages in a row: features without labels, meta-learned, and handed to a small model.

    python -m experiments.pipeline glyphs
    python -m experiments.pipeline omniglot --data.data-dir DIR    # under an hour on 2 CPU cores
    python -m experiments.pipeline classic --data.data-dir DIR     # ResNet-18 on any folder of images, one a class

Each stage writes a folder of its own under the run folder and is skipped when it is finished, so that the same
command goes on where an interrupted run stopped. Every row is judged on the same episodes of unseen classes.
"""

from typing import Any

from experiments.cli import Report, console, parse_preset, run_experiment
from experiments.pipeline_config import PipelineConfig
from experiments.presets.pipeline import PRESETS
from metarep_jax.data import Splits
from metarep_jax.model import Model
from metarep_jax.stages import Compute, EvaluateSettings, distil, metatrain, pretrain
from metarep_jax.stages.evaluate import (
    BASELINES,
    few_shot_columns,
    few_shot_rows,
    frozen_features,
    parameter_cells,
)
from metarep_jax.stages.features import untrained_model
from metarep_jax.stages.figures import bars_figure, curves_figure, embedding_figure, episode_figure, views_figure
from metarep_jax.stages.metatrain import training_episode

COMPARED = {
    "Pretraining without labels": ("pretrained", "untrained"),
    "Meta-learning from scratch": ("meta_scratch", "pretrained"),
    "Pretraining before meta-learning": ("meta_pretrained", "meta_scratch"),
    "The student, beside its teacher": ("student", "meta_pretrained"),
}
TEACHER_EPISODES = 1000


def train_models(config: PipelineConfig, splits: Splits, compute: Compute) -> dict[str, Model]:
    """The models of every row, in the table's order."""
    pretrained = pretrain(config.pretrain, splits, compute.below("pretrain"), encoder=config.encoder)
    models = {
        "untrained": untrained_model(config.encoder, splits, compute, config.pretrain.whiten),
        "pretrained": pretrained,
        "pretrained_logistic": frozen_features(pretrained, BASELINES["logistic regression"]),
    }
    stages = {"meta": config.meta} | ({"second": config.second} if config.with_second else {})
    for prefix, settings in stages.items():
        label = "meta" if prefix == "meta" else settings.learner.name.rpartition(":")[2]
        for begin, start in {"scratch": None, "pretrained": pretrained}.items():
            row = f"{label}_{begin}"
            models[row] = metatrain(
                settings,
                splits,
                compute.below(row),
                start=start,
                encoder=config.encoder,
                embed=pretrained.embed,
                what=row.replace("_", ", from "),
            )
    teacher = best_teacher(models, splits, compute)
    models["student"] = distil(config.distill, splits, teacher, compute.below("student"))
    return models


def best_teacher(models: dict[str, Model], splits: Splits, compute: Compute) -> Model:
    """The meta-learned model that does better on the validation classes."""
    rows, pool = {row: models[row] for row in ("meta_scratch", "meta_pretrained")}, splits.val
    if not pool.count.size:
        return rows["meta_pretrained"]
    way = models["meta_scratch"].spec.way if models["meta_scratch"].fixed_way else min(5, pool.count.shape[0])
    specs = EvaluateSettings(ways=(way,), shots=(1,)).specs(splits.protocol, pool)
    if not specs:
        return rows["meta_pretrained"]
    scores = {
        row: few_shot_columns(model, splits, specs, compute, part="val", episodes=TEACHER_EPISODES)[specs[0].name].mean
        for row, model in rows.items()
    }
    best = max(scores, key=lambda row: scores[row])
    console.print(
        f"teacher: {best} ({', '.join(f'{row} {score:.2f}%' for row, score in scores.items())} on validation)"
    )
    return rows[best]


def what_each_stage_buys(cells: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence a stage: the difference between two rows, and whether it exceeds chance."""
    notes = []
    for stage, (row, other) in COMPARED.items():
        differences = []
        for column in cells[row]:
            if column == "parameters" or column not in cells[other]:
                continue
            one, two = cells[row][column], cells[other][column]
            gain, margin = one["mean"] - two["mean"], (one["ci95"] ** 2 + two["ci95"] ** 2) ** 0.5
            verdict = "no measurable difference" if abs(gain) <= margin else f"{gain:+.1f} points"
            differences.append(f"{verdict} on {column}")
        notes.append(f"{stage} ({row} against {other}): {', '.join(differences)}.")
    return notes


def work(config: PipelineConfig, splits: Splits, compute: Compute) -> Report:
    """All stages, their table, and what each buys."""
    folder, models = compute.folder, train_models(config, splits, compute)
    cells = few_shot_rows(models, splits, config.evaluate, compute, modes=True)
    for row, more in parameter_cells(models).items():
        cells[row] |= more
    labelled, learner = config.meta.tasks.source == "labels", models["meta_scratch"].learner(config.meta.episode.way)
    curves = {row: folder / row for row in ("pretrain", *models) if (folder / row / "metrics.jsonl").is_file()}
    figures = [
        views_figure(folder, splits, compute, config.pretrain.augment),
        *(
            [episode_figure(folder, splits, compute, training_episode(splits, config.meta.episode, learner))]
            if labelled
            else []
        ),
        curves_figure(folder, curves),
        embedding_figure(folder, splits, models["student"]),
        bars_figure(folder, {row: cells[row] for row in models}),
    ]
    return Report(cells, figures, what_each_stage_buys(cells))


def main(argv: list[str] | None = None) -> None:
    """Runs the preset that the first argument names, with its flags."""
    run_experiment("pipeline", work, parse_preset(PRESETS, __doc__, argv))


if __name__ == "__main__":
    main()
