"""Training on a fixed set of classes: feature extraction, fine-tuning, and distillation from a frozen teacher."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarep_jax.distill.classifier import Classifier
from metarep_jax.types import Examples, Keys, Outputs, Term, Trainable

Teacher = Callable[[Array], Outputs]  # inputs [n, ...] -> outputs; frozen


def train_classifier(
    student: Classifier,
    loss: Term,
    *,
    teacher: Teacher | None = None,
    augment: Callable[[Array, Array], Array] | None = None,
    encoder_params: Any = None,
) -> Trainable:
    """Minimises ``loss`` of the student's outputs, and the teacher's if there is one, on labelled batches.

    Student and teacher see the same augmented view. With ``loss=cross_entropy()`` and no teacher this is plain
    feature extraction or fine-tuning, as the ``student`` was made.

    Args:
      student: from ``classifier(...)``.
      loss: a term or ``distillation_loss({...})`` of terms.
      teacher: a frozen function of the inputs, such as ``frozen_teacher(...)``.
      augment: ``(keys [n], images [n, h, w, c]) -> views``.
      encoder_params: the encoder's variables from an earlier stage.
    """

    def init(key: Array, batch: dict) -> tuple[Any, Any]:
        student_key, term_key = jax.random.split(key)
        inputs = jnp.asarray(batch["inputs"][:2])
        params, state = student.init(student_key, inputs, encoder_params)
        shown, _ = student.outputs(params, state, inputs)
        taught = teacher(inputs) if teacher else {}
        return {"student": params, "terms": loss.init(term_key, shown, taught)}, state

    def objective(params: Any, state: Any, batch: dict, keys: Keys) -> tuple[Array, tuple[Any, dict]]:
        inputs = augment(keys.example, batch["inputs"]) if augment else batch["inputs"]
        examples = Examples(inputs, batch["label"], batch.get("mask"))
        taught = jax.lax.stop_gradient(teacher(inputs)) if teacher else {}
        shown, state = student.outputs(params["student"], state, inputs, examples.mask, train=True)
        value = loss.apply(params["terms"], shown, taught, examples)
        return value, (state, {"accuracy": jnp.mean(jnp.argmax(shown["logits"], -1) == examples.label)})

    def grads(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Any, Any, dict]:
        del step
        (value, (state, metrics)), grad = jax.value_and_grad(objective, has_aux=True)(params, state, batch, keys)
        return grad, state, {"loss": value, **metrics}

    return Trainable(init, grads)


def frozen_teacher(model: Classifier, params: Any, state: Any) -> Teacher:
    """The model as a fixed function of its inputs, with running batch statistics."""

    def outputs(inputs: Array) -> Outputs:
        return model.outputs(params, state, inputs)[0]

    return outputs
