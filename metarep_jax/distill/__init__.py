"""Stage 3: hand what a model knows to a smaller one, or to fixed classes."""

from metarep_jax.distill.batches import (
    Teacher,
    distil_features,
    feature_loss,
    frozen_teacher,
    targets_by_index,
    train_classifier,
)
from metarep_jax.distill.config import TERMS, LossConfig, TermConfig, loss_of, make_loss
from metarep_jax.distill.few_shot import distil_few_shot
from metarep_jax.distill.layer_terms import feature_regression, hint
from metarep_jax.distill.students import Student, classifier, classifier_encoder, encoder_alone
from metarep_jax.distill.terms import cross_entropy, distillation_loss, soft_targets

__all__ = [
    "TERMS",
    "LossConfig",
    "Student",
    "Teacher",
    "TermConfig",
    "classifier",
    "classifier_encoder",
    "cross_entropy",
    "distil_features",
    "distil_few_shot",
    "distillation_loss",
    "encoder_alone",
    "feature_loss",
    "feature_regression",
    "frozen_teacher",
    "hint",
    "loss_of",
    "make_loss",
    "soft_targets",
    "targets_by_index",
    "train_classifier",
]
