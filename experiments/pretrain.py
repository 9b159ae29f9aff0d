"""Stage 1: learn features without labels, and judge them on unseen classes.

    python -m experiments.pretrain                                  # glyphs, a few minutes on a laptop
    python -m experiments.pretrain --data omniglot --data.data-dir DIR
    python -m experiments.pretrain --objective byol --pretrain.objective.momentum 0.95
    python -m experiments.pretrain --objective my_module:my_objective --encoder my_module:my_encoder
    python -m experiments.pretrain --data folder --data.data-dir DIR --data.image-size 32 --encoder resnet18
    python -m experiments.pretrain --data docstrings --encoder transformer --objective masked_lm
    python -m experiments.pretrain --data synthetic-speech --encoder waveform --objective cpc

Writes config, metrics, checkpoints, figures, report.md, result.json and the model; the same command resumes.
"""

import dataclasses
from typing import ClassVar

import cattrs

from experiments.cli import CommonConfig, Report, folder_of, parse, run_experiment
from metarep_jax.data import Splits
from metarep_jax.encoders import EncoderConfig
from metarep_jax.model import modules_named
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.stages import Compute, EvaluateSettings, PretrainSettings, pretrain
from metarep_jax.stages.evaluate import as_cells, few_shot_rows, joined, log_notes, probes
from metarep_jax.stages.features import untrained_model
from metarep_jax.stages.figures import curves_figure, embedding_figure, views_figure
from metarep_jax.stages.judge import health_rows, judge_trained
from metarep_jax.stages.pretrain import has_images, with_views


@dataclasses.dataclass(frozen=True)
class PretrainConfig(CommonConfig):
    """Flags of experiments.pretrain."""

    encoder: EncoderConfig = EncoderConfig()
    """Which encoder, and its shape."""
    pretrain: PretrainSettings = PretrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    shorthands: ClassVar[dict[str, str]] = {"objective": "pretrain.objective"}
    usual: ClassVar[tuple[str, ...]] = (EncoderConfig().name, ObjectiveConfig().name)  # not in the run folder's name

    @property
    def default_folder(self) -> str:
        """Objectives and encoders do not share a folder."""
        own = (self.encoder.name, self.pretrain.objective.name)
        return folder_of(super().default_folder, *(name for name in own if name not in self.usual))


def work(config: PretrainConfig, splits: Splits, compute: Compute) -> Report:
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


if __name__ == "__main__":
    run_experiment("pretrain", work, parse(PretrainConfig, __doc__))
