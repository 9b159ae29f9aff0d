"""A masked language model of running text: trained on Brown and WikiText-2, judged on WikiText-2's test part.

    python -m experiments.masked_lm --data.data-dir DIR          # by estimate 15 minutes on 2 CPU cores
    python -m experiments.masked_lm --data wikitext2 --pretrain.train.steps 100000 --encoder.width 256    # a GPU
    python -m experiments.publish runs/masked_lm-brown+wikitext2 masked_lm --figures masked_words

``experiments.pretrain`` with other defaults: it trains on all of Brown and on WikiText-2's validation part (on its
training part instead, where that is there). Rows: the model, its untrained self, and ``unigram``, which knows how
frequent each token is and says the most frequent one. Columns: the share of hidden tokens that are found, in %, and the
loss in nats.
"""

from typing import ClassVar

from experiments.cli import parse, run_experiment
from experiments.configs import PretrainConfig
from experiments.reports import pretrain_report
from metarep_jax.data import DataConfig
from metarep_jax.encoders import EncoderConfig
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.stages import PretrainSettings
from metarep_jax.train import FitConfig, OptimiserConfig

VOCABULARY = 4096


class MaskedLMConfig(PretrainConfig):
    """Flags of experiments.masked_lm."""

    usual: ClassVar[tuple[str, ...]] = ("transformer", "masked_lm")


CONFIG = MaskedLMConfig(
    data=DataConfig(name="brown+wikitext2", length=32, vocabulary=VOCABULARY),
    encoder=EncoderConfig(name="transformer", width=128, depth=3, vocabulary=VOCABULARY),
    pretrain=PretrainSettings(
        objective=ObjectiveConfig(name="masked_lm"),
        augment="none",
        optimiser=OptimiserConfig("adamw", 2e-3, weight_decay=1e-2, schedule="cosine", warmup_steps=200),
        train=FitConfig(steps=5000, batch_size=64),
    ),
)


if __name__ == "__main__":
    run_experiment("masked_lm", pretrain_report, parse(MaskedLMConfig, __doc__, CONFIG))
