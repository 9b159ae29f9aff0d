"""Training: one loop for all stages, with its optimisers, devices, checkpoints and metrics."""

from metarep_jax.train.compilation_cache import use_compilation_cache
from metarep_jax.train.display import track
from metarep_jax.train.divergence import TrainingDiverged
from metarep_jax.train.fit_config import FitConfig
from metarep_jax.train.loop import Fitted, fit
from metarep_jax.train.metrics import read_lines
from metarep_jax.train.optimisers import OptimiserConfig, make_optimiser, make_schedule
from metarep_jax.train.parallel import (
    AXIS,
    check_batch,
    dividing_devices,
    local_devices,
    map_over_keys,
    use_cpu_devices,
)
from metarep_jax.train.precision import compute_dtype
from metarep_jax.train.processes import on_main_process, start_processes
from metarep_jax.train.signals import Terminated
from metarep_jax.train.storage.inputs import Input, Inputs
from metarep_jax.train.storage.packing import tree_digest
from metarep_jax.train.storage.read_weights import Weights, read_weights
from metarep_jax.train.storage.run_folder import RunFolderInUse, open_run
from metarep_jax.train.trainable import meta_learning, pretraining

__all__ = [
    "AXIS",
    "FitConfig",
    "Fitted",
    "Input",
    "Inputs",
    "OptimiserConfig",
    "RunFolderInUse",
    "Terminated",
    "TrainingDiverged",
    "Weights",
    "check_batch",
    "compute_dtype",
    "dividing_devices",
    "fit",
    "local_devices",
    "make_optimiser",
    "make_schedule",
    "map_over_keys",
    "meta_learning",
    "on_main_process",
    "open_run",
    "pretraining",
    "read_lines",
    "read_weights",
    "start_processes",
    "track",
    "tree_digest",
    "use_compilation_cache",
    "use_cpu_devices",
]
