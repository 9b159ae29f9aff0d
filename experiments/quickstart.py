"""The whole pipeline in a few minutes on 2 CPU cores: letters of scripts never seen in training.

    python -m experiments.quickstart

Glyphs need no download. Prints a table (untrained encoder, features learned without labels, meta-learned from
scratch, meta-learned after pretraining, distilled student) and says what each stage buys.
"""

from experiments.cli import parse, run_experiment
from experiments.configs import PipelineConfig
from experiments.presets.pipeline import QUICKSTART
from experiments.reports import pipeline_report

if __name__ == "__main__":
    run_experiment("quickstart", pipeline_report, parse(PipelineConfig, __doc__, default=QUICKSTART))
