"""The three stages in a row: features without labels, meta-learned, and handed to a small model.

    python -m experiments.pipeline glyphs
    python -m experiments.pipeline omniglot --data.data-dir DIR    # under an hour on 2 CPU cores
    python -m experiments.pipeline classic --data.data-dir DIR     # ResNet-18 on any folder of images, one a class

Each stage writes a folder of its own under the run folder and is skipped when it is finished, so that the same
command goes on where an interrupted run stopped. Every row is judged on the same episodes of unseen classes.
"""

from experiments.cli import parse_preset, run_experiment
from experiments.presets.pipeline import PRESETS
from experiments.reports import pipeline_report

if __name__ == "__main__":
    run_experiment("pipeline", pipeline_report, parse_preset(PRESETS, __doc__))
