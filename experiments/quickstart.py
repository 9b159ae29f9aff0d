"""The whole pipeline in a few minutes on 2 CPU cores: letters of scripts never seen in training.

    python -m experiments.quickstart

Glyphs need no download. Prints a table (untrained encoder, features learned without labels, meta-learned from
scratch, meta-learned after pretraining, distilled student) and says what each stage buys.
"""

from experiments.cli import parse, run_experiment
from experiments.pipeline import work
from experiments.pipeline_config import PipelineConfig
from experiments.presets.pipeline import QUICKSTART

if __name__ == "__main__":
    run_experiment("quickstart", work, parse(PipelineConfig, __doc__, default=QUICKSTART))
