"""Judge a finished run on test episodes: every learner that applies, under every batch-norm mode.

    python -m experiments.evaluate --model runs/pretrain-glyphs
    python -m experiments.evaluate --model runs/pipeline-omniglot/student --data omniglot --data.data-dir DIR
    python -m experiments.evaluate --model runs/pretrain-glyphs --learner finetune_head finetune_all scratch
    python -m experiments.evaluate --model runs/seed0 runs/seed1 runs/seed2
    python -m experiments.evaluate --model runs/pretrain-glyphs --checkpoint 1500    # or 0, the latest of a training

Rows: the model itself under each mode, nearest prototype and logistic regression on its frozen features, the learners
of --learner from its encoder, a linear probe and weighted nearest neighbours on a labelled split of the test classes;
and of an objective that reconstructs or predicts, what it makes of the test rows by itself, with figures.

The labelled split is always the same. Of several models, such as one a seed, means are given, with the wider interval
of that over examples and that over models.
"""

import dataclasses
from pathlib import Path

from experiments.cli import CommonConfig, Report, folder_of, parse, run_experiment
from metarep_jax.data import Splits
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model
from metarep_jax.report.results import Cells
from metarep_jax.stages import Compute, EvaluateSettings
from metarep_jax.stages.checks import check_model_takes
from metarep_jax.stages.class_probes import probe_note, probe_rows
from metarep_jax.stages.evaluate import BASELINES, few_shot_rows, frozen_features, log_notes
from metarep_jax.stages.figures import embedding_figure
from metarep_jax.stages.judge import Judged, judge_trained
from metarep_jax.stages.models_of_runs import models_of_runs
from metarep_jax.stages.result_cells import joined, mean_over_models


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(CommonConfig):
    """Flags of experiments.evaluate. The encoder is the model's own."""

    model: tuple[Path, ...] = (Path("runs/quickstart-glyphs/student"),)
    """Folder of a finished run; or several, of the same method from different seeds."""
    checkpoint: int | None = None
    """Step of a checkpoint to judge in place of the finished model, of a run that may be under way; 0: the latest. A
    training keeps its last ones, as many as its train.keep. Whitening is fitted on the training rows of the data given
    here; what only finished runs keep, such as decoders, is not judged."""
    learner: tuple[str, ...] = ()
    """More learners to judge, by name or as my_module:my_learner: each a row, from the model's encoder and without
    meta-training of its own."""
    evaluate: EvaluateSettings = EvaluateSettings()
    inner_steps: int | None = None
    """Inner steps at test; default: the learner's own."""

    def __post_init__(self):
        super().__post_init__()
        if self.checkpoint is not None and self.checkpoint < 0:
            raise ValueError(f"--checkpoint must be a step, or 0 for the latest, got {self.checkpoint}")
        if not self.model:
            raise ValueError("--model must be the folder of a finished run, or several; got none")
        for name in self.learner:
            LearnerConfig(name)

    @property
    def default_folder(self) -> str:
        """Models, checkpoints and learners do not share a folder."""
        names = "+".join("-".join(folder.parts[-2:]) for folder in self.model)
        checkpoint = "" if self.checkpoint is None else str(self.checkpoint)
        return folder_of(super().default_folder, names, checkpoint, *self.learner)


def rows_of(config: EvaluateConfig, model: Model, splits: Splits, compute: Compute) -> Cells:
    """All rows of one model.

    Raises:
      ValueError: for data of another shape than the model takes.
    """
    check_model_takes(model, splits, "--model")
    settings = config.evaluate
    cells: Cells = {}
    if model.spec.kind == "learner":
        own = {"model": model}
        cells |= few_shot_rows(own, splits, settings, compute, modes=True, inner_steps=config.inner_steps)
    for row, learner in BASELINES.items():
        cells |= few_shot_rows({row: frozen_features(model, learner)}, splits, settings, compute)
    for name in config.learner:
        row = {name: frozen_features(model, LearnerConfig(name))}
        cells |= few_shot_rows(row, splits, settings, compute, inner_steps=config.inner_steps)
    return cells | probe_rows(model, splits)


def work(config: EvaluateConfig, splits: Splits, compute: Compute) -> Report:
    """Judges the models."""
    folder, several = config.model[0], splits.test.count.shape[0] > 1
    models, notes = models_of_runs(config.model, config.checkpoint, splits, config.allow)
    left_out = [*config.evaluate.notes(splits), *filter(None, [probe_note(splits)])]
    notes += log_notes(left_out)
    judged = Judged({}, [])
    if config.checkpoint is None:  # objectives are kept of the last step alone
        judged = judge_trained(folder, models[0].spec.encoder, splits, compute, allow=config.allow)
    if not judged.cells and not several:
        raise ValueError(
            f"there is nothing to judge: the test rows of {config.data.name} are of one class, and {folder} "
            "holds no objective that could be judged by itself (only a finished run of experiments.pretrain keeps one, "
            "and not for its checkpoints)"
        )
    cells = mean_over_models([rows_of(config, model, splits, compute) for model in models])
    cells = {row: columns for row, columns in joined(cells, judged.cells).items() if columns}
    if not cells:
        raise ValueError(f"there is nothing to judge: {'; '.join(left_out)}")
    figures = [*([embedding_figure(compute.folder, splits, models[0])] if several else []), *judged.figures]
    return Report(cells, figures, notes)


if __name__ == "__main__":
    run_experiment("evaluate", work, parse(EvaluateConfig, __doc__))
