"""The whole pipeline in a few minutes on 2 CPU cores: letters of scripts never seen in training.

    python -m experiments.quickstart

Glyphs need no download. Prints a table (untrained encoder, features learned without labels, meta-learned from
scratch, meta-learned after pretraining, distilled student) and says what each stage buys.
"""

import dataclasses

from experiments.cli import parse
from experiments.common import run_experiment
from experiments.evaluate import EvaluateSettings
from experiments.pipeline import GLYPHS, PipelineConfig, work
from metarep_jax.encoders import EncoderConfig


@dataclasses.dataclass(frozen=True)
class QuickstartConfig(PipelineConfig):
    """Flags of experiments.quickstart."""


def small() -> QuickstartConfig:
    """The pipeline's settings for glyphs, made small."""
    shorter = {
        "encoder": EncoderConfig(width=32),
        "pretrain": dataclasses.replace(
            GLYPHS.pretrain, train=dataclasses.replace(GLYPHS.pretrain.train, steps=400, batch_size=256)
        ),
        "meta": dataclasses.replace(
            GLYPHS.meta, train=dataclasses.replace(GLYPHS.meta.train, steps=1200, validate_every=300)
        ),
        "distill": dataclasses.replace(
            GLYPHS.distill,
            student=EncoderConfig(width=16),
            train=dataclasses.replace(GLYPHS.distill.train, steps=3000, validate_every=1000),
        ),
        "evaluate": EvaluateSettings(ways=(5, 20), shots=(1, 5), mode_episodes=100),
    }
    fields = {field.name: getattr(GLYPHS, field.name) for field in dataclasses.fields(GLYPHS)}
    return QuickstartConfig(**(fields | shorter))


if __name__ == "__main__":
    run_experiment("quickstart", work, parse(QuickstartConfig, __doc__, default=small()))
