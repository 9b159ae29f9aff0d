"""Meta-learners: factories of ``types.MetaLearner``. A learner of your own is named by its dotted path."""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Literal

from flax import linen as nn

from metarep_jax.metalearn.logistic import logistic_regression
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.prototypical import prototypical
from metarep_jax.types import MetaLearner, NormMode


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Which meta-learner, and its settings. A setting that a learner does not take is left alone."""

    name: str = "maml"
    """maml, prototypical, logistic_regression, or the dotted path of your own factory, such as my_module:my_learner."""
    inner_lr: float = 0.4
    """maml: step size of the inner loop, on the mean cross-entropy of the support set."""
    inner_steps: int = 1
    """maml: inner steps in training."""
    test_steps: int = 3
    """maml: inner steps at test."""
    order: Literal[1, 2] = 2
    """maml: 1 drops second derivatives (first-order MAML)."""
    remat: bool = False
    """maml: recompute inner steps in the backward pass, nested, to save memory."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """prototypical: distance of a query to a prototype."""
    temperature: float | None = None
    """prototypical: divides the negative distances; default 1 (euclidean) or 0.1 (cosine)."""
    l2: float = 1.0
    """logistic_regression: strength of the penalty on the weights."""
    test_norm: NormMode | None = None
    """Whose statistics batch norm uses for queries at test; default: the learner's own (maml: transductive)."""

    def __post_init__(self):
        for field in ("inner_lr", "l2"):
            if getattr(self, field) <= 0:
                raise ValueError(f"LearnerConfig.{field} must be positive, got {getattr(self, field)}")
        for field in ("inner_steps", "test_steps"):
            if getattr(self, field) < 0:
                raise ValueError(f"LearnerConfig.{field} must not be negative, got {getattr(self, field)}")
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"LearnerConfig.temperature must be positive, got {self.temperature}")
        find_factory(self.name)


LEARNERS: dict[str, Callable[..., MetaLearner]] = {
    "maml": maml,
    "prototypical": prototypical,
    "logistic_regression": logistic_regression,
}


@functools.lru_cache(maxsize=256)
def make_learner(config: LearnerConfig, encoder: nn.Module, *, way: int) -> MetaLearner:
    """The learner that ``config`` names, over ``encoder``, for episodes of ``way`` classes.

    The same arguments give the same object, so that what was compiled for it is found again.
    A factory is called as ``factory(encoder, way=way, **those fields of config that it has parameters for)``.

    Raises:
      ValueError: for an unknown name, a path that does not import, or a factory that returns something else.
    """
    factory = find_factory(config.name)
    given = {key: value for key, value in dataclasses.asdict(config).items() if value is not None and key != "name"}
    takes = inspect.signature(factory).parameters
    learner = factory(encoder, way=way, **{key: value for key, value in given.items() if key in takes})
    if not isinstance(learner, MetaLearner):
        raise ValueError(f"{config.name} returned {type(learner).__name__}, wanted a metarep_jax.types.MetaLearner")
    return learner


def find_factory(name: str) -> Callable[..., Any]:
    """The factory called ``name``, or at the dotted path ``module:attribute``."""
    if name in LEARNERS:
        return LEARNERS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(sorted(LEARNERS))
        raise ValueError(f"unknown learner {name!r}; there are: {known}; or give your own as my_module:my_learner")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"learner {name!r} cannot be loaded: {error}") from error
