"""Which meta-learner: by its name here, or by the dotted path of a factory of your own."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn

from metarep_jax.choices import Choice
from metarep_jax.encoders.features import Identity
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
from metarep_jax.metalearn.reptile import reptile
from metarep_jax.metalearn.ridge import ridge
from metarep_jax.metalearn.svm import svm
from metarep_jax.types import MetaLearner

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

PLACEHOLDER: Any = Identity()  # stands for an encoder where a learner is only asked about itself


class LearnerConfig(Choice):
    """Which meta-learner, with its own settings: ``LearnerConfig("maml", inner_lr=0.4)``."""

    what = "learner"
    known = LEARNERS
    supplied = frozenset({"encoder", "way", "head"})
    default = "maml"

    def __init__(self, name: str = "", keywords: Sequence[tuple[str, Any]] = (), **more: Any):
        super().__init__(name, keywords, **more)
        if self.name in LEARNERS:  # values out of range are refused here; one of your own is not called before its time
            self.build(PLACEHOLDER, way=2)


@functools.lru_cache(maxsize=256)
def make_learner(config: LearnerConfig, encoder: nn.Module, *, way: int) -> MetaLearner:
    """The learner that ``config`` names, over ``encoder``, for episodes of ``way`` classes.

    The same arguments give the same object, so that what was compiled for it is found again.
    A factory is called as ``factory(encoder, way=way, **settings)``.

    Raises:
      ValueError: by the factory, for settings out of range, or where it returns something else.
    """
    return config.build(encoder, wanted=MetaLearner, way=way)


def adapts_encoder(learner: LearnerConfig | str) -> bool:
    """Whether the learner, or the one of that name, may change the encoder's weights from task to task."""
    config = LearnerConfig(learner) if isinstance(learner, str) else learner
    return not make_learner(config, PLACEHOLDER, way=2).shares_encoder


def trains(learner: LearnerConfig | str) -> bool:
    """Whether the learner, or the one of that name, can be meta-trained; else it is a baseline that judges encoders."""
    config = LearnerConfig(learner) if isinstance(learner, str) else learner
    return make_learner(config, PLACEHOLDER, way=2).trainable
