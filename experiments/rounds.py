"""Label-free few-shot features in rounds: cluster the features, meta-learn on the clusters, and begin again.

    python -m experiments.rounds --data omniglot --data.data-dir DIR
    python -m experiments.rounds --start runs/pretrain-omniglot --rounds.rounds 2

No label is used before the test. Stage 1 and each round write a folder of their own, so that the same command goes on
where an interrupted run stopped.
"""

import dataclasses
from pathlib import Path

from experiments.cli import CommonConfig, Report, folder_of, parse, run_experiment
from metarep_jax.data import Splits
from metarep_jax.encoders import EncoderConfig
from metarep_jax.stages import Compute, EvaluateSettings, PretrainSettings, RoundsSettings, pretrain, rounds
from metarep_jax.stages.evaluate import few_shot_rows, log_notes
from metarep_jax.stages.features import untrained_model
from metarep_jax.stages.figures import bars_figure, curves_figure, embedding_figure
from metarep_jax.stages.rounds import WHITEN_AFTER
from metarep_jax.stages.starting_models import load_model


@dataclasses.dataclass(frozen=True)
class RoundsConfig(CommonConfig):
    """Flags of experiments.rounds."""

    encoder: EncoderConfig = EncoderConfig()
    """Which encoder; not beside --start, whose own it is."""
    start: Path | None = None
    """Run folder of stage 1; default: it is trained first."""
    pretrain: PretrainSettings = PretrainSettings()
    """Stage 1, without --start."""
    rounds: RoundsSettings = RoundsSettings(whiten_after=WHITEN_AFTER)
    evaluate: EvaluateSettings = EvaluateSettings()

    def __post_init__(self):
        super().__post_init__()
        if self.start is not None and (self.encoder, self.pretrain) != (EncoderConfig(), PretrainSettings()):
            raise ValueError("stage 1 is that of --start; leave out the flags of --encoder and --pretrain")

    @property
    def default_folder(self) -> str:
        """Starts do not share a folder."""
        return folder_of(super().default_folder, f"from-{self.start.name}" if self.start else "")


def work(config: RoundsConfig, splits: Splits, compute: Compute) -> Report:
    """Stage 1, the rounds, and the table of what each gives."""
    folder, notes = compute.folder, log_notes(config.evaluate.notes(splits))
    if config.start is None:
        start = pretrain(config.pretrain, splits, compute.below("pretrain"), encoder=config.encoder)
    else:
        start = load_model(config.start, splits, config.allow)
    after = rounds(config.rounds, splits, start, compute)
    models = {"untrained": untrained_model(start.spec.encoder, splits, compute, config.pretrain.whiten)}
    models |= {"pretrained": start} | {f"round_{number}": model for number, model in enumerate(after, start=1)}
    cells = few_shot_rows(models, splits, config.evaluate, compute)
    curves = {row: folder / row.replace("_", "") for row in models if row.startswith("round")}
    last = list(models.values())[-1]
    figures = [curves_figure(folder, curves), embedding_figure(folder, splits, last), bars_figure(folder, cells)]
    return Report(cells, figures, notes)


if __name__ == "__main__":
    run_experiment("rounds", work, parse(RoundsConfig, __doc__))
