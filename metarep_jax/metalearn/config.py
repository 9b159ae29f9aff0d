"""Which meta-learner: by its name here, or by the dotted path of a factory of your own."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

from flax import linen as nn

from metarep_jax.factories import call_with, named_factory
from metarep_jax.metalearn.anil import anil, boil
from metarep_jax.metalearn.cavia import cavia
from metarep_jax.metalearn.finetune import finetune
from metarep_jax.metalearn.imaml import imaml
from metarep_jax.metalearn.logistic import logistic_regression
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.maml_pp import maml_pp
from metarep_jax.metalearn.matching import matching
from metarep_jax.metalearn.meta_curvature import meta_curvature
from metarep_jax.metalearn.meta_sgd import meta_sgd
from metarep_jax.metalearn.newton import newton_logistic
from metarep_jax.metalearn.prototypical import prototypical
from metarep_jax.metalearn.relation import relation
from metarep_jax.metalearn.reptile import Moments, reptile
from metarep_jax.metalearn.ridge import ridge
from metarep_jax.metalearn.svm import svm
from metarep_jax.types import MetaLearner, NormMode

LEARNERS: dict[str, Callable[..., MetaLearner]] = {
    "maml": maml,
    "anil": anil,
    "boil": boil,
    "meta_sgd": meta_sgd,
    "meta_curvature": meta_curvature,
    "maml_pp": maml_pp,
    "reptile": reptile,
    "imaml": imaml,
    "cavia": cavia,
    "prototypical": prototypical,
    "matching": matching,
    "relation": relation,
    "ridge": ridge,
    "newton_logistic": newton_logistic,
    "svm": svm,
    "logistic_regression": logistic_regression,
    "finetune_head": functools.partial(finetune, what="head"),
    "finetune_cosine_head": functools.partial(finetune, what="cosine_head"),
    "finetune_all": functools.partial(finetune, what="all"),
    "scratch": functools.partial(finetune, what="scratch"),
}
SHARED_ENCODER = frozenset(  # learners that leave the encoder's weights alone
    {"anil", "cavia", "prototypical", "matching", "relation", "ridge", "newton_logistic", "svm", "logistic_regression"}
    | {"finetune_head", "finetune_cosine_head"}
)
BASELINES = frozenset(  # learners that cannot be meta-trained: they judge an encoder
    {"logistic_regression", "finetune_head", "finetune_cosine_head", "finetune_all", "scratch"}
)


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Which meta-learner, and its settings. One that is not given is the learner's own default; a learner leaves alone
    what it does not take."""

    name: str = "maml"
    """A name of metarep_jax.metalearn.LEARNERS, or the dotted path of your own factory: my_module:my_learner."""
    inner_lr: float | None = None
    """Step size of the inner loop, on the mean loss of the support set; Meta-SGD: where all its rates start."""
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
    multi_step_updates: int | None = None
    """MAML++: updates over which the loss of early inner steps is annealed; then the last step's alone counts."""
    first_order_updates: int | None = None
    """MAML++: updates at first order, before those at second."""
    proximal: float | None = None
    """iMAML: how strongly a task's weights are held to the initialisation."""
    test_proximal: float | None = None
    """iMAML: the same at test, which may be 0; default: as in training."""
    cg_steps: int | None = None
    """iMAML: iterations of conjugate gradients for the meta-gradient."""
    train_shot: int | None = None
    """Reptile: examples a class of a training episode."""
    inner_batch: int | None = None
    """Reptile: rows of a minibatch in training."""
    test_batch: int | None = None
    """Reptile, fine-tuning: rows of a minibatch at test."""
    inner_optimiser: Literal["sgd", "momentum", "adam", "adam_beta1_0"] | None = None
    """Reptile, fine-tuning: what takes the inner steps."""
    moments: Moments | None = None
    """Reptile: whether the inner optimiser's moments persist across tasks, as in the original, or start fresh."""
    weight_decay: float | None = None
    """Fine-tuning: strength of the decay, added to the gradient."""
    distance: Literal["euclidean", "cosine"] | None = None
    """Metric-based learners: distance of a query to a prototype or an example."""
    temperature: float | None = None
    """Metric-based learners: divides the negative distances."""
    full_context: bool | None = None
    """Matching Networks: embed support examples and queries by the whole support set."""
    score_loss: Literal["squared_error", "cross_entropy"] | None = None
    """Relation Networks: squared error of the scores, as in the paper, or cross-entropy."""
    l2: float | None = None
    """Closed-form heads: strength of the penalty on the weights; where it is learned, its start."""
    iterations: int | None = None
    """Closed-form heads: steps of the solver (Newton, dual gradient, L-BFGS)."""
    context: int | None = None
    """CAVIA: length of the context vector."""
    test_norm: NormMode | None = None
    """Whose statistics batch norm uses for queries at test."""

    def __post_init__(self):
        for field in ("inner_lr", "l2", "temperature", "proximal"):
            if (value := getattr(self, field)) is not None and value <= 0:
                raise ValueError(f"LearnerConfig.{field} must be positive, got {value}")
        for field in ("context", "iterations", "cg_steps", "train_shot", "inner_batch", "test_batch"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"LearnerConfig.{field} must be at least 1, got {value}")
        for field in (
            "inner_steps", "test_steps", "multi_step_updates", "first_order_updates", "test_proximal", "weight_decay",
        ):  # fmt: skip
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
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "name"}
    return call_with(find_factory(config.name), encoder, wanted=MetaLearner, way=way, **given)


def adapts_encoder(name: str) -> bool:
    """Whether the learner of that name may change the encoder's weights from task to task; True for your own."""
    return name not in SHARED_ENCODER


def find_factory(name: str) -> Callable[..., Any]:
    """The factory called ``name``, or at the dotted path ``module:attribute``.

    Raises:
      ValueError: for a name that is neither.
    """
    return named_factory(name, LEARNERS, "learner")
