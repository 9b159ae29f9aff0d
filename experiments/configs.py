"""The flags that several experiments share: those of stage 1, and of the three stages in a row."""

import dataclasses
from typing import ClassVar

from experiments.cli import CommonConfig, folder_of
from metarep_jax.encoders import EncoderConfig
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.stages import DistilSettings, EvaluateSettings, MetatrainSettings, PretrainSettings


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


@dataclasses.dataclass(frozen=True)
class PipelineConfig(CommonConfig):
    """Flags of experiments.pipeline."""

    encoder: EncoderConfig = EncoderConfig()
    """Which encoder, and its shape; the student has its own."""
    pretrain: PretrainSettings = PretrainSettings()
    meta: MetatrainSettings = MetatrainSettings()
    """The learner that teaches the student; trained from scratch and from the pretrained encoder."""
    second: MetatrainSettings = MetatrainSettings()
    """Another learner beside it."""
    with_second: bool = False
    """Whether to train the second learner too."""
    distill: DistilSettings = DistilSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    shorthands: ClassVar[dict[str, str]] = {
        "learner": "meta.learner",
        "objective": "pretrain.objective",
        "student": "distill.student",
    }
