"""A distillation loss by the names of its terms, with their weights: each term's settings are its factory's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metarep_jax.choices import Choice, WeightedChoices
from metarep_jax.distill.layer_terms import feature_regression, hint
from metarep_jax.distill.terms import cross_entropy, distillation_loss, soft_targets
from metarep_jax.types import Term

TERMS: dict[str, Callable[..., Term]] = {
    "cross_entropy": cross_entropy,
    "soft_targets": soft_targets,
    "hint": hint,
    "feature_regression": feature_regression,
}


class TermConfig(Choice):
    """One term of a distillation loss, with its own settings: ``TermConfig("soft_targets", temperature=4.0)``."""

    what = "term"
    known = TERMS
    supplied = frozenset({"axis_name"})
    default = "cross_entropy"
    weighted = True

    def __init__(self, name: str = "", keywords: Sequence[tuple[str, Any]] = (), **more: Any):
        super().__init__(name, keywords, **more)
        if self.name in TERMS:  # values out of range are refused here
            self.build()


class LossConfig(WeightedChoices):
    """A weighted sum of terms; ``loss_of`` makes one from keywords."""

    kind = TermConfig


def loss_of(weights: Mapping[str, float], **settings: Mapping[str, Any]) -> LossConfig:
    """The loss of the terms in ``weights``, with their settings by name.

    ``loss_of({"cross_entropy": 1.0, "soft_targets": 0.5}, soft_targets={"temperature": 2.0})``.
    """
    return LossConfig(tuple((TermConfig(name, **settings.get(name, {})), weight) for name, weight in weights.items()))


def make_loss(config: LossConfig, axis_name: str | None = None) -> Term:
    """The distillation loss that ``config`` describes.

    Raises:
      ValueError: by a term's factory, for settings out of range, or where it returns something else.
    """
    terms = {choice.build(wanted=Term, axis_name=axis_name): weight for choice, weight in config.members}
    return distillation_loss(terms)
