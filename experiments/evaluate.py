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
from collections.abc import Sequence
from pathlib import Path

from experiments.cli import CommonConfig, Report, folder_of, parse, run_experiment
from metarep_jax.data import Splits
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model
from metarep_jax.report.results import Cells
from metarep_jax.stages import Compute, EvaluateSettings
from metarep_jax.stages.checkpoints import model_at
from metarep_jax.stages.checks import check_model_takes
from metarep_jax.stages.class_probes import probe_note, probe_rows
from metarep_jax.stages.evaluate import BASELINES, few_shot_rows, frozen_features, log_notes
from metarep_jax.stages.figures import embedding_figure
from metarep_jax.stages.judge import Judged, judge_trained
from metarep_jax.stages.result_cells import joined, mean_over_models
from metarep_jax.stages.starting_models import check_model, load_model


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


def models_of(config: EvaluateConfig, splits: Splits) -> tuple[list[Model], list[str]]:
    """The finished models of runs, or those of the checkpoint that is asked for, and what to say of them.

    Raises:
      FileNotFoundError: where there is no such model.
      ValueError: for models that do not fit the data, or differ in kind or step.
    """
    folders: Sequence[Path] = config.model
    if config.checkpoint is None:
        for folder in folders:
            if not (folder / "model" / "spec.json").is_file() and (folder / "checkpoints").is_dir():
                raise FileNotFoundError(
                    f"the training in {folder} is not finished; its own command goes on with it, --checkpoint 0 judges "
                    "what there is"
                )
        models, notes = [load_model(folder, splits, config.allow) for folder in folders], []
    else:
        found = [model_at(folder, config.checkpoint or None, splits, allow=config.allow) for folder in folders]
        if len(steps := {at for _, at in found}) > 1:
            raise ValueError(f"the latest checkpoints are of steps {sorted(steps)}; give a step that all of them have")
        models, notes = [model for model, _ in found], [f"the checkpoint of step {steps.pop()}"]
        for model, folder in zip(models, folders, strict=True):
            check_model(model, folder, splits)
    if others := [str(folder) for folder, model in zip(folders, models) if model.spec != models[0].spec]:
        raise ValueError(f"a mean is over models of one kind; {', '.join(others)} differ from {folders[0]}")
    if len(models) > 1:
        notes.append(f"means over {len(models)} models; figures and rows of the objective are the first's")
    return models, notes


def work(config: EvaluateConfig, splits: Splits, compute: Compute) -> Report:
    """Judges the models."""
    folder, several = config.model[0], splits.test.count.shape[0] > 1
    models, notes = models_of(config, splits)
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
