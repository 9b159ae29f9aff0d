"""What a stage's checkpoints are of, written before training begins, so that any of them can be judged."""

import json
from pathlib import Path

import cattrs

from metarep_jax.files import atomic_write
from metarep_jax.model import ModelSpec
from metarep_jax.train import on_main_process

FILE = "trained.json"  # in a stage's folder


def write_card(folder: Path, spec: ModelSpec, whiten: float | None = None) -> None:
    """Writes the spec of the model that the training in ``folder`` makes; done by the main process.

    Args:
      folder: of the stage.
      spec: of the model.
      whiten: for frozen features: the power of their whitening, which is fitted once they are there.
    """
    if on_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        card = {"spec": cattrs.unstructure(spec), "whiten": whiten}
        atomic_write(folder / FILE, json.dumps(card, indent=2) + "\n")
