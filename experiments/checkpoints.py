"""Models out of checkpoints: of a training that goes on, was ended, or has gone past what is wanted."""

import json
from pathlib import Path

import cattrs
import jax
import jax.numpy as jnp

from experiments.common import Run, check_model
from experiments.features import features_model
from metarep_jax.encoders import encoder_variables
from metarep_jax.model import Model, ModelSpec
from metarep_jax.train import is_first, read_weights
from metarep_jax.train.metrics import replace_file

FILE = "spec.json"  # in a stage's folder: what its checkpoints are of


def announce(folder: Path, spec: ModelSpec, whiten: float | None = None) -> None:
    """Writes what ``model_at`` must know, before training begins; done by the first of several processes.

    Args:
      folder: of the stage.
      spec: of the model that the training makes.
      whiten: for frozen features: the power of their whitening, which is fitted once they are there.
    """
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        told = {"spec": cattrs.unstructure(spec), "whiten": whiten}
        replace_file(folder / FILE, json.dumps(told, indent=2) + "\n")


def model_at(run: Run, folder: Path, step: int | None) -> Model:
    """The model that a stage's checkpoint would be as the last; of frozen features, fitted on the run's training rows.

    Args:
      run: with the data.
      folder: of the stage.
      step: of the checkpoint; None: the latest.

    Raises:
      FileNotFoundError: when there is no such checkpoint; says which there are.
      ValueError: when it is damaged or does not fit the run's data.
    """
    weights = read_weights(folder, step)
    file = folder / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing, which says what the checkpoints of {folder} are of")
    told = json.loads(file.read_text(encoding="utf-8"))
    spec = cattrs.structure(told["spec"], ModelSpec)
    params, state = jax.tree.map(jnp.asarray, (weights.params, weights.state))
    model = Model(spec, params.get("student", params), state)  # of a distillation, the student
    check_model(run, folder, model)
    if told["whiten"] is None:
        return model
    return features_model(run, encoder_variables(params, state), told["whiten"], spec)
