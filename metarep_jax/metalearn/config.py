"""Which meta-learner: by its name here, or by the dotted path of a factory of your own."""

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

LEARNERS: dict[str, Callable[..., MetaLearner]] = {
    "maml": maml,
    "prototypical": prototypical,
    "logistic_regression": logistic_regression,
}
SHARED_ENCODER = frozenset({"prototypical", "logistic_regression"})  # learners that leave the encoder's weights alone


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Which meta-learner, and its settings. One that is not given is the learner's own default; a learner leaves alone
    what it does not take."""

    name: str = "maml"
    """A name of metarep_jax.metalearn.LEARNERS, or the dotted path of your own factory: my_module:my_learner."""
    inner_lr: float | None = None
    """Step size of the inner loop, on the mean loss of the support set."""
    inner_steps: int | None = None
    """Inner steps in training."""
    test_steps: int | None = None
    """Inner steps at test."""
    order: Literal[1, 2] | None = None
    """Gradient-based learners: 1 drops second derivatives (first-order MAML)."""
    remat: bool | None = None
    """Gradient-based learners: recompute inner steps in the backward pass, nested, to save memory."""
    mixed: bool | None = None
    """Gradient-based learners: differentiate through inner gradients forward over reverse (MixFlow-MG)."""
    distance: Literal["euclidean", "cosine"] | None = None
    """Metric-based learners: distance of a query to a prototype or an example."""
    temperature: float | None = None
    """Metric-based learners: divides the negative distances."""
    l2: float | None = None
    """Closed-form heads: strength of the penalty on the weights."""
    test_norm: NormMode | None = None
    """Whose statistics batch norm uses for queries at test."""

    def __post_init__(self):
        for field in ("inner_lr", "l2", "temperature"):
            if (value := getattr(self, field)) is not None and value <= 0:
                raise ValueError(f"LearnerConfig.{field} must be positive, got {value}")
        for field in ("inner_steps", "test_steps"):
            if (value := getattr(self, field)) is not None and value < 0:
                raise ValueError(f"LearnerConfig.{field} must not be negative, got {value}")
        find_factory(self.name)


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


def adapts_encoder(name: str) -> bool:
    """Whether the learner of that name may change the encoder's weights from task to task; True for your own."""
    return name not in SHARED_ENCODER


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
