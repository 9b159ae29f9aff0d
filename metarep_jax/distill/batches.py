"""Distillation on batches: fixed classes, or features without labels; with a frozen teacher, or labels alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from metarep_jax.distill.asked import check_needs, check_teacher, encoder_layers
from metarep_jax.distill.students import Student, encoder_alone
from metarep_jax.losses import accuracy
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.types import Keys, Metrics, Outputs, Term, Trainable

Augment = Callable[[Any, Array], Array]  # (keys [n], images [n, h, w, c]) -> views
Teacher = Callable[[dict, tuple[str, ...]], Outputs]  # (batch, encoder's layers) -> outputs; frozen
BatchMetrics = Callable[[Outputs, dict], Metrics]


class BatchLoss(NamedTuple):
    """``init(key, batch) -> params, state`` and ``loss(params, state, batch, keys) -> scalar, (state, metrics)``, both
    params and state ``{"student", "terms"}``."""

    init: Callable[[Any, dict], tuple[Any, Any]]
    loss: Callable[[Any, Any, dict, Keys], tuple[Array, tuple[Any, Metrics]]]


def train_classifier(
    student: Student,
    loss: Term,
    *,
    teacher: Teacher | None = None,
    augment: Augment | None = None,
    encoder_params: Any = None,
    size: int = 0,
    axis_name: str | None = None,
) -> Trainable:
    """Minimises ``loss`` of the student's outputs, and the teacher's if there is one, on labelled batches.

    Student and teacher see the same augmented view. With ``loss=cross_entropy()`` and no teacher this is plain
    feature extraction or fine-tuning, as the ``student`` was made, or supervised training from scratch.

    Args:
      student: from ``classifier(...)``.
      loss: a term or ``distillation_loss({...})`` of terms.
      teacher: such as ``frozen_teacher(...)``.
      augment: ``(keys [n], images [n, h, w, c]) -> views``.
      encoder_params: the encoder's variables from an earlier stage.
      size: examples of the training data, for terms that remember each of them.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      A ``Trainable`` whose params and state are ``{"student", "terms"}``.

    Raises:
      ValueError: for terms that ask a teacher where there is none; by ``init``, for batches without what terms need.
    """

    def metrics(outputs: Outputs, batch: dict) -> Metrics:
        return {"accuracy": accuracy(outputs["logits"], batch["label"], batch.get("mask"), axis_name)}

    return trainable_of(batch_loss(student, loss, metrics, teacher, augment, encoder_params, size))


def distil_features(
    encoder: nn.Module,
    loss: Term,
    *,
    teacher: Teacher,
    augment: Augment | None = None,
    encoder_params: Any = None,
    size: int = 0,
    axis_name: str | None = None,
) -> Trainable:
    """Teaches an encoder a frozen teacher's features, without labels: ``loss`` is ``feature_regression()``, say.

    With a teacher of the student's own shape this is self-distillation (Furlanello et al. 2018,
    https://arxiv.org/abs/1805.04770). One that averages over views of an image (``targets_by_index``) gives the student
    in one pass what costs the teacher many.

    Args:
      encoder: the student, a module of ``metarep_jax.encoders``.
      loss: a term or ``distillation_loss({...})`` of terms, on "features" or layers of the encoder.
      teacher: such as ``frozen_teacher(encoder_alone(...), params, state)``, which sees the student's view, or
        ``targets_by_index(features)``.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``.
      encoder_params: the encoder's variables from an earlier stage.
      size: examples of the training data, for terms that remember each of them.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      A ``Trainable`` whose params and state are ``{"student", "terms"}``, with metrics ``embedding_std`` and
      ``effective_rank``.

    Raises:
      ValueError: by ``init``, for batches without what terms need.
    """
    start = {"encoder_params": encoder_params, "size": size, "axis_name": axis_name}
    return trainable_of(feature_loss(encoder, loss, teacher=teacher, augment=augment, **start))


def feature_loss(
    encoder: nn.Module,
    loss: Term,
    *,
    teacher: Teacher,
    augment: Augment | None = None,
    encoder_params: Any = None,
    size: int = 0,
    axis_name: str | None = None,
) -> BatchLoss:
    """What ``distil_features`` minimises."""

    def metrics(outputs: Outputs, batch: dict) -> Metrics:
        del batch
        return embedding_health(outputs["features"], axis_name)

    return batch_loss(encoder_alone(encoder), loss, metrics, teacher, augment, encoder_params, size)


def batch_loss(
    student: Student,
    loss: Term,
    metrics: BatchMetrics,
    teacher: Teacher | None = None,
    augment: Augment | None = None,
    encoder_params: Any = None,
    size: int = 0,
) -> BatchLoss:
    """``loss`` of a student's and a teacher's outputs on one view of a batch; see ``train_classifier``."""
    check_teacher(loss, teacher)
    layers, theirs = encoder_layers(loss.layers), encoder_layers(loss.asks_of_teacher)

    def shown_by_teacher(batch: dict) -> Outputs:
        return jax.lax.stop_gradient(teacher(batch, theirs)) if teacher and loss.asks_of_teacher else {}

    def init(key: Array, batch: dict) -> tuple[Any, Any]:
        check_needs(loss, batch, "batches")
        student_key, term_key = jax.random.split(key)
        few = {name: jnp.asarray(rows[:2]) for name, rows in batch.items() if rows is not None}
        params, state = student.init(student_key, few["inputs"], encoder_params)
        outputs, _ = student.outputs(params, state, few["inputs"], layers=layers)
        terms, memory = loss.init(term_key, outputs, shown_by_teacher(few), few, size)
        return {"student": params, "terms": terms}, {"student": state, "terms": memory}

    def value_of(params: Any, state: Any, batch: dict, keys: Keys) -> tuple[Array, tuple[Any, Metrics]]:
        batch = {name: rows for name, rows in batch.items() if rows is not None}
        if augment is not None:
            batch = {**batch, "inputs": augment(keys.example, batch["inputs"])}
        outputs, moved = student.outputs(
            params["student"], state["student"], batch["inputs"], batch.get("mask"), train=True, layers=layers
        )
        value, memory = loss.apply(params["terms"], state["terms"], outputs, shown_by_teacher(batch), batch, keys)
        return value, ({"student": moved, "terms": memory}, metrics(outputs, batch))

    return BatchLoss(init, value_of)


def trainable_of(batch_loss: BatchLoss) -> Trainable:
    """What the training loop runs of a loss on batches."""

    def grads(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Any, Any, Metrics]:
        del step
        gradient = jax.value_and_grad(batch_loss.loss, has_aux=True)
        (value, (state, metrics)), grad = gradient(params, state, batch, keys)
        return grad, state, {"loss": value, **metrics}

    return Trainable(batch_loss.init, grads)


def frozen_teacher(model: Student, params: Any, state: Any) -> Teacher:
    """The model as a fixed function of a batch's inputs, with running batch statistics."""

    def outputs(batch: dict, layers: tuple[str, ...] = ()) -> Outputs:
        return model.outputs(params, state, batch["inputs"], layers=layers)[0]

    return outputs


def targets_by_index(features: Float[Array, "n dim"] | Callable[[Int[Array, " b"]], Float[Array, "b dim"]]) -> Teacher:
    """A teacher that knows its features of every training example already, or computes them from its number."""

    def outputs(batch: dict, layers: tuple[str, ...] = ()) -> Outputs:
        if layers:
            raise ValueError(f"features that were computed before have no layer {layers[0]!r}; they have: features")
        if "index" not in batch:
            raise ValueError("features that were computed before go by the examples' index, which these batches lack")
        return {"features": features(batch["index"]) if callable(features) else features[batch["index"]]}

    return outputs
