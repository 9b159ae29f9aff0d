"""Stage 2: meta-learn, from scratch or from pretrained features; on the training classes, or without labels.

    python -m experiments.metatrain                                             # MAML on glyphs
    python -m experiments.metatrain --learner prototypical --meta.episode.way 20
    python -m experiments.metatrain --learner.inner-lr 0.1 --learner.inner-steps 5 --run-folder runs/maml-5-steps
    python -m experiments.metatrain --start runs/pretrain-glyphs                # from stage 1's encoder
    python -m experiments.metatrain --learner my_module:my_learner              # a learner of your own
    python -m experiments.metatrain --tasks augmentations --meta.augment glyph  # no labels: each image is a class
    python -m experiments.metatrain --tasks clusters --start runs/pretrain-glyphs    # no labels: clusters of features

The best checkpoint on the validation classes is kept and judged on the test classes; without labels, the last.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

from experiments.cli import CommonConfig, Report, folder_of, parse, run_experiment
from metarep_jax.data import Splits
from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.stages import Compute, EvaluateSettings, MetatrainSettings, metatrain
from metarep_jax.stages.evaluate import few_shot_rows, log_notes
from metarep_jax.stages.figures import (
    curves_figure,
    embedding_figure,
    episode_figure,
    layers_figure,
    occlusion_figure,
    serves_tasks,
)
from metarep_jax.stages.metatrain import training_episode, with_fitting_episode
from metarep_jax.stages.pretrain import has_images
from metarep_jax.stages.starting_models import load_model


@dataclasses.dataclass(frozen=True)
class MetatrainConfig(CommonConfig):
    """Flags of experiments.metatrain."""

    encoder: EncoderConfig = EncoderConfig()
    """Which encoder, from scratch; not beside --start, whose own it is."""
    start: Path | None = None
    """Run folder whose encoder to start from; default: from scratch."""
    features: Path | None = None
    """Run folder whose features are clustered, for tasks from clusters; default: that of start."""
    meta: MetatrainSettings = MetatrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    shorthands: ClassVar[dict[str, str]] = {"learner": "meta.learner", "tasks": "meta.tasks.source"}

    def __post_init__(self):
        super().__post_init__()
        if self.start is not None and self.encoder != EncoderConfig():
            raise ValueError("the encoder is that of --start; leave out the flags of --encoder")

    @property
    def default_folder(self) -> str:
        """Learners, starts and sources of tasks do not share a folder."""
        return folder_of(
            super().default_folder,
            self.meta.learner.name if self.meta.learner.name != LearnerConfig().name else "",
            self.meta.tasks.source if self.meta.tasks.source != "labels" else "",
            f"from-{self.start.name}" if self.start else "",
        )


def work(config: MetatrainConfig, splits: Splits, compute: Compute) -> Report:
    """Meta-trains, and judges the learner under every batch-norm mode."""
    folder, settings = compute.folder, config.meta
    start = load_model(config.start, splits, config.allow) if config.start else None
    notes = log_notes(config.evaluate.notes(splits))
    model = metatrain(
        settings, splits, compute,
        start=start, encoder=None if start else config.encoder,
        features=load_model(config.features, splits, config.allow) if config.features else None,
    )  # fmt: skip
    labelled, images = settings.tasks.source == "labels", has_images(splits)
    settings, shrunk = with_fitting_episode(settings, splits, model.spec.encoder)
    episode = training_episode(splits, settings.episode, model.learner(settings.episode.way), labelled)
    tasks = serves_tasks(splits, model)
    figures = [
        *([episode_figure(folder, splits, compute, episode)] if labelled and images else []),
        curves_figure(folder, {"meta-learn": folder}),
        *([embedding_figure(folder, splits, model)] if splits.test.count.shape[0] > 1 else []),
        *([layers_figure(folder, splits, compute, model, start.encoder_params if start else None)] if tasks else []),
        *([occlusion_figure(folder, splits, compute, model)] if tasks and images else []),
    ]
    cells = few_shot_rows({"meta_learned": model}, splits, config.evaluate, compute, modes=True)
    return Report(cells, figures, [*shrunk, *notes])


if __name__ == "__main__":
    run_experiment("metatrain", work, parse(MetatrainConfig, __doc__))
