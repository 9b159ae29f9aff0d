"""What experiments with one work but other defaults have to say: stage 1, and the three stages in a row."""

import cattrs

from experiments.cli import Report
from experiments.configs import PipelineConfig, PretrainConfig
from metarep_jax.data import Splits
from metarep_jax.model import modules_named
from metarep_jax.report.comparison import describe_gains
from metarep_jax.stages import Compute, pretrain
from metarep_jax.stages.class_probes import probes
from metarep_jax.stages.evaluate import few_shot_rows, log_notes
from metarep_jax.stages.features import untrained_model
from metarep_jax.stages.figures import bars_figure, curves_figure, embedding_figure, episode_figure, views_figure
from metarep_jax.stages.judge import health_rows, judge_trained
from metarep_jax.stages.metatrain import training_episode, with_fitting_episode
from metarep_jax.stages.pipeline import pipeline
from metarep_jax.stages.pretrain import has_images, with_views
from metarep_jax.stages.result_cells import as_cells, joined, parameter_cells

COMPARED = {
    "Pretraining without labels": ("pretrained", "untrained"),
    "Meta-learning from scratch": ("meta_scratch", "pretrained"),
    "Pretraining before meta-learning": ("meta_pretrained", "meta_scratch"),
    "The student, beside its teacher": ("student", "meta_pretrained"),
}


def pretrain_report(config: PretrainConfig, splits: Splits, compute: Compute) -> Report:
    """Trains, and judges the features and the objective by itself."""
    folder, settings = compute.folder, with_views(config.pretrain, splits)
    notes = log_notes(config.evaluate.notes(splits))
    model = pretrain(settings, splits, compute, encoder=config.encoder)
    rows = {"untrained": untrained_model(model.spec.encoder, splits, compute, settings.whiten), "pretrained": model}
    own = modules_named(cattrs.unstructure(settings.objective))  # whoever typed its name trusts it
    judged = judge_trained(folder, model.spec.encoder, splits, compute, allow=own)
    cells = joined(few_shot_rows(rows, splits, config.evaluate, compute), judged.cells)
    if splits.fixed_classes:
        cells = joined(cells, {row: as_cells(probes(each, splits)) for row, each in rows.items()})
    several = splits.test.count.shape[0] > 1
    if not several and has_images(splits):
        cells = joined(cells, health_rows(rows, splits))
    figures = [
        *([views_figure(folder, splits, compute, settings.augment)] if has_images(splits) else []),
        curves_figure(folder, {"pretrain": folder}),
        *([embedding_figure(folder, splits, model)] if several else []),
        *judged.figures,
    ]
    return Report(cells, figures, notes)


def pipeline_report(config: PipelineConfig, splits: Splits, compute: Compute) -> Report:
    """All stages, their table, and what each buys."""
    folder, notes = compute.folder, log_notes(config.evaluate.notes(splits))
    models = pipeline(config, splits, compute)
    cells = few_shot_rows(models, splits, config.evaluate, compute, modes=True)
    for row, more in parameter_cells(models).items():
        cells[row] |= more
    meta, shrunk = with_fitting_episode(config.meta, splits, config.encoder)
    labelled, learner = meta.tasks.source == "labels", models["meta_scratch"].learner(meta.episode.way)
    curves = {row: folder / row for row in ("pretrain", *models) if (folder / row / "metrics.jsonl").is_file()}
    figures = [
        views_figure(folder, splits, compute, with_views(config.pretrain, splits).augment),
        *(
            [episode_figure(folder, splits, compute, training_episode(splits, meta.episode, learner))]
            if labelled
            else []
        ),
        curves_figure(folder, curves),
        embedding_figure(folder, splits, models["student"]),
        bars_figure(folder, {row: cells[row] for row in models}),
    ]
    return Report(cells, figures, [*describe_gains(cells, COMPARED), *shrunk, *notes])
