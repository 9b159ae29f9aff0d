"""Models out of checkpoints: of a training that goes on, was ended, or has gone past what is wanted."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from metarep_jax.data import Splits
from metarep_jax.distill import classifier
from metarep_jax.encoders import input_dtype, make_encoder
from metarep_jax.files import atomic_write
from metarep_jax.metalearn import adapts_encoder, make_learner
from metarep_jax.model import Model, ModelSpec, spec_of_json, spec_to_json
from metarep_jax.stages.features import features_model
from metarep_jax.train import Weights, on_main_process, read_weights
from metarep_jax.types import EpisodeSpec, episode_of

FILE = "trained.json"  # in a stage's folder: what its checkpoints are of


def write_card(folder: Path, spec: ModelSpec, whiten: float | None = None) -> None:
    """Writes the spec of the model that the training in ``folder`` makes, before it begins; by the main process.

    Args:
      folder: of the stage.
      spec: of the model.
      whiten: for frozen features: the power of their whitening, which is fitted once they are there.
    """
    if on_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        card = {"spec": spec_to_json(spec), "whiten": whiten}
        atomic_write(folder / FILE, json.dumps(card, indent=2) + "\n")


def model_at(folder: Path, step: int | None, splits: Splits, *, allow: Sequence[str] = ()) -> tuple[Model, int]:
    """The model that a stage's checkpoint would be as the last, and its step.

    Args:
      folder: of the stage.
      step: of the checkpoint; None: the latest.
      splits: on their training rows, norms and whitening of frozen features are fitted.
      allow: modules whose code may run; see ``metarep_jax.load``.

    Raises:
      FileNotFoundError: when there is no such checkpoint; says which there are.
      ValueError: when it is damaged, or names code that is not allowed.
    """
    weights = read_weights(folder, step)
    file = folder / FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing, which says what the checkpoints are of; the training's own command writes it, when it "
            "goes on"
        )
    card = json.loads(file.read_text(encoding="utf-8"))
    spec = spec_of_json(card["spec"], file, allow)
    model = model_of_weights(spec, weights)
    if card["whiten"] is not None:
        model = features_model(spec, model.encoder_params, splits, card["whiten"])
    return model, weights.step


def model_of_weights(spec: ModelSpec, weights: Weights) -> Model:
    """A learner, a classifier, the student of a distillation, or frozen features, whose structure follows from their
    ``spec``; what else was trained with them, such as heads, is left out."""
    encoder = make_encoder(spec.encoder, adapted=adapts_encoder(spec.learner))
    distilled = weights.has("params['student']")
    part, stands = ("params['student']", "state['student']") if distilled else ("params", "state")
    blank, key = jnp.zeros((2, *spec.shape), input_dtype(spec.encoder)), jax.random.key(0)
    if spec.kind == "classifier":
        model = classifier(encoder, len(spec.class_names), frozen=weights.has(f"{stands}['frozen']"))
        params, state = jax.eval_shape(model.init, key, blank)
    else:
        episode = episode_of(EpisodeSpec(way=spec.way), blank)
        params, state = jax.eval_shape(make_learner(spec.learner, encoder, way=spec.way).init, key, episode)
    return Model(spec, weights.tree(part, params), weights.tree(stands, state))
