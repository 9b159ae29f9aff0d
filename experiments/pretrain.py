"""Stage 1: learn features without labels, and judge them on unseen classes.

    python -m experiments.pretrain                                  # glyphs, a few minutes on a laptop
    python -m experiments.pretrain --data omniglot --data.data-dir DIR
    python -m experiments.pretrain --objective byol --pretrain.objective.momentum 0.95
    python -m experiments.pretrain --objective my_module:my_objective --encoder my_module:my_encoder
    python -m experiments.pretrain --data folder --data.data-dir DIR --data.image-size 32 --encoder resnet18
    python -m experiments.pretrain --data docstrings --encoder transformer --objective masked_lm
    python -m experiments.pretrain --data synthetic-speech --encoder waveform --objective cpc

Writes config, metrics, checkpoints, figures, report.md, result.json and the model; the same command resumes.
"""

from experiments.cli import parse, run_experiment
from experiments.configs import PretrainConfig
from experiments.reports import pretrain_report

if __name__ == "__main__":
    run_experiment("pretrain", pretrain_report, parse(PretrainConfig, __doc__))
