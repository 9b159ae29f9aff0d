"""Trained models: in use, on disk, out of checkpoints, exported."""

from metarep_jax.model.migrate import VERSION
from metarep_jax.model.model import Model, Prediction, load, save_model
from metarep_jax.model.spec import ModelSpec, spec_of_json, spec_to_json
from metarep_jax.model.storage import is_whole
from metarep_jax.model.trust import modules_named

__all__ = [
    "VERSION",
    "Model",
    "ModelSpec",
    "Prediction",
    "is_whole",
    "load",
    "modules_named",
    "save_model",
    "spec_of_json",
    "spec_to_json",
]
