"""Stage 3: hand what a model knows to a smaller one, or to fixed classes."""

import dataclasses
from collections.abc import Callable

from metarep_jax.distill.batches import (
    Teacher,
    distil_features,
    feature_loss,
    frozen_teacher,
    targets_by_index,
    train_classifier,
)
from metarep_jax.distill.few_shot import distil_few_shot
from metarep_jax.distill.layer_terms import feature_regression, hint
from metarep_jax.distill.objectives import as_objective
from metarep_jax.distill.students import Student, classifier, classifier_encoder, encoder_alone
from metarep_jax.distill.terms import cross_entropy, distillation_loss, soft_targets
from metarep_jax.types import Term

__all__ = [
    "TERMS",
    "LossConfig",
    "Student",
    "Teacher",
    "as_objective",
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
    "make_loss",
    "soft_targets",
    "targets_by_index",
    "train_classifier",
]

TERMS: dict[str, Callable[..., Term]] = {
    "cross_entropy": cross_entropy,
    "soft_targets": soft_targets,
    "hint": hint,
    "feature_regression": feature_regression,
}


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the distillation terms; a term of weight 0 is left out."""

    cross_entropy: float = 1.0
    """Weight of the labels."""
    soft_targets: float = 1.0
    """Weight of the teacher's softened targets, T² · KL."""
    temperature: float = 4.0
    """T of the softened targets."""
    hint: float = 0.0
    """Weight of the distance to the teacher's features through a learned projection."""

    def __post_init__(self):
        weights = {name: getattr(self, name) for name in ("cross_entropy", "soft_targets", "hint")}
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"LossConfig.{name} must not be negative, got {weight}")
        if not any(weights.values()):
            raise ValueError("LossConfig: every weight is 0; give at least one of cross_entropy, soft_targets, hint")
        if self.temperature <= 0:
            raise ValueError(f"LossConfig.temperature must be positive, got {self.temperature}")


def make_loss(config: LossConfig) -> Term:
    """The distillation loss that ``config`` describes."""
    terms = {
        cross_entropy(): config.cross_entropy,
        soft_targets(config.temperature): config.soft_targets,
        hint(): config.hint,
    }
    return distillation_loss({term: weight for term, weight in terms.items() if weight > 0})
