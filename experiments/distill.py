"""Stage 3: hand what a model knows to a smaller one.

    python -m experiments.distill --teacher runs/metatrain-glyphs                    # few-shot: both adapt on episodes
    python -m experiments.distill --teacher runs/transfer-glyphs-supervised --mode classes    # a classifier's logits
    python -m experiments.distill --teacher runs/pretrain-glyphs --mode features --distill.augment glyph

``few-shot`` and ``features`` are judged on unseen classes; ``classes`` on the held-out examples of the classes.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

from experiments.cli import CommonConfig, Report, folder_of, parse, run_experiment
from metarep_jax.data import Splits
from metarep_jax.stages import Compute, DistilSettings, EvaluateSettings, class_accuracy, distil
from metarep_jax.stages.distil import DistilMode, with_fitting_episode
from metarep_jax.stages.evaluate import few_shot_rows, log_notes
from metarep_jax.stages.figures import curves_figure, episode_figure
from metarep_jax.stages.metatrain import training_episode
from metarep_jax.stages.pretrain import has_images
from metarep_jax.stages.result_cells import as_cells, parameter_cells
from metarep_jax.stages.starting_models import load_model


@dataclasses.dataclass(frozen=True)
class DistillConfig(CommonConfig):
    """Flags of experiments.distill."""

    teacher: Path = Path("runs/metatrain-glyphs")
    """Folder of the finished run that teaches."""
    mode: DistilMode = "few-shot"
    """few-shot: teacher and student adapt on episodes. classes: the student learns a classifier's classes. features: it
    learns a model's features, without labels."""
    distill: DistilSettings = DistilSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    shorthands: ClassVar[dict[str, str]] = {
        "learner": "distill.learner",
        "student": "distill.student",
        "loss": "distill.loss",
    }

    @property
    def default_folder(self) -> str:
        """Modes, teachers and losses do not share a folder."""
        usual = self.mode == "few-shot" and self.teacher == DistillConfig.teacher
        terms = {term.name for term, _ in self.distill.loss.members}
        new = sorted(terms - {term.name for term, _ in DistilSettings().loss.members})
        return folder_of(super().default_folder, "" if usual else f"{self.mode}-of-{self.teacher.name}", *new)


def work(config: DistillConfig, splits: Splits, compute: Compute) -> Report:
    """Trains the student and judges it beside its teacher."""
    folder, teacher, notes = compute.folder, load_model(config.teacher, splits, config.allow), []
    if config.mode != "classes":
        notes = log_notes(config.evaluate.notes(splits))
    models = {"teacher": teacher, "student": distil(config.distill, splits, teacher, compute, mode=config.mode)}
    figures = []
    if config.mode == "classes":
        column = f"{len(teacher.spec.class_names)} classes"
        cells = {row: as_cells({column: class_accuracy(model, splits, compute)}) for row, model in models.items()}
    else:
        cells = few_shot_rows(models, splits, config.evaluate, compute)
    if config.mode == "few-shot":
        episode, changed = with_fitting_episode(config.distill, splits, teacher.head_way)
        notes = [*changed, *notes]
        if has_images(splits):
            figures = [episode_figure(folder, splits, compute, training_episode(splits, episode))]
    for row, more in parameter_cells(models).items():
        cells[row] = cells.get(row, {}) | more
    return Report(cells, [*figures, curves_figure(folder, {"distil": folder})], notes)


if __name__ == "__main__":
    run_experiment("distill", work, parse(DistillConfig, __doc__))
