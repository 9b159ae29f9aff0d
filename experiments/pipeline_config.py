"""The flags of the three stages in a row."""

import dataclasses
from typing import ClassVar

from experiments.cli import CommonConfig
from metarep_jax.encoders import EncoderConfig
from metarep_jax.stages import DistilSettings, EvaluateSettings, MetatrainSettings, PretrainSettings


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
