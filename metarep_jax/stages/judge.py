"""The objective of a finished stage 1 judged by itself on the test rows, where the stage kept it."""

from pathlib import Path
from typing import NamedTuple

from metarep_jax.data import Splits, make_augment
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.evaluate.objective_judge import judge_objective
from metarep_jax.pretrain import make_objective
from metarep_jax.pretrain.trained import load_objective
from metarep_jax.report import figures
from metarep_jax.report.results import Cells
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.pretrain import has_images
from metarep_jax.train import on_main_process


class Judged(NamedTuple):
    """Rows of cells, and the figures that were drawn; empty where there was nothing to judge."""

    return Judged({row: as_cells(columns) for row, columns in found.rows.items()}, drawn)
