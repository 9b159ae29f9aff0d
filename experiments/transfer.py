"""Fixed classes: supervised training, the plain baseline; a head on frozen features; fine-tuning.

    python -m experiments.transfer --data folder --data.data-dir DIR        # DIR/{train,test}/CLASS, from scratch
    python -m experiments.transfer --start runs/pretrain-glyphs --mode linear-head
    python -m experiments.transfer --start runs/pretrain-glyphs --mode fine-tune

Judged on the data's own test examples of the same classes; of data that are split by classes, on a quarter of each
training class's examples, held out by the seed.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

from experiments.cli import CommonConfig, Report, folder_of, parse, run_experiment
from metarep_jax.data import Splits
from metarep_jax.encoders import EncoderConfig
from metarep_jax.stages import ClassSettings, Compute, class_accuracy, transfer
from metarep_jax.stages.figures import curves_figure
from metarep_jax.stages.result_cells import as_cells, parameter_cells
from metarep_jax.stages.starting_models import load_model
from metarep_jax.stages.transfer import TransferMode


@dataclasses.dataclass(frozen=True)
class TransferConfig(CommonConfig):
    """Flags of experiments.transfer."""

    start: Path | None = None
    """Run folder whose encoder to start from (linear-head, fine-tune)."""
    mode: TransferMode = "supervised"
    """supervised: encoder and head from scratch. linear-head: a head on a frozen encoder. fine-tune: both, from it."""
    transfer: ClassSettings = ClassSettings()

    shorthands: ClassVar[dict[str, str]] = {"encoder": "transfer.encoder"}

    def __post_init__(self):
        super().__post_init__()
        if (self.start is None) != (self.mode == "supervised"):
            raise ValueError(
                f"--mode {self.mode} needs --start, a finished run's folder"
                if self.start is None
                else "--mode supervised starts from random weights; leave out --start, or give linear-head or fine-tune"
            )
        if self.start is not None and self.transfer.encoder != EncoderConfig():
            raise ValueError("the encoder is that of --start; leave out the flags of --encoder")

    @property
    def default_folder(self) -> str:
        """Modes and starts do not share a folder."""
        return folder_of(super().default_folder, self.mode, f"from-{self.start.name}" if self.start else "")


def work(config: TransferConfig, splits: Splits, compute: Compute) -> Report:
    """Trains the classifier and judges it."""
    start = load_model(config.start, splits, config.allow) if config.start else None
    model = transfer(config.transfer, splits, compute, start=start, mode=config.mode)
    row = as_cells({f"{len(model.spec.class_names)} classes": class_accuracy(model, splits, compute)})
    cells = {config.mode: row | parameter_cells({config.mode: model})[config.mode]}
    return Report(cells, [curves_figure(compute.folder, {config.mode: compute.folder})])


if __name__ == "__main__":
    run_experiment("transfer", work, parse(TransferConfig, __doc__))
