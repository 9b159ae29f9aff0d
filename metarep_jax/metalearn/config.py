"""Which meta-learner: by its name here, or by the dotted path of a factory of your own."""

import functools
from collections.abc import Callable

from flax import linen as nn

from metarep_jax.choices import Choice
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
SHARED_ENCODER = frozenset(  # learners that leave the encoder's weights alone
    {"anil", "cavia", "prototypical", "matching", "relation", "ridge", "newton_logistic", "svm", "logistic_regression"}
    | {"finetune_head", "finetune_cosine_head"}
)
BASELINES = frozenset(  # learners that cannot be meta-trained: they judge an encoder
    {"logistic_regression", "finetune_head", "finetune_cosine_head", "finetune_all", "scratch"}
)


class LearnerConfig(Choice):
    """Which meta-learner, with its own settings: ``LearnerConfig("maml", inner_lr=0.4)``."""

    what = "learner"
    known = LEARNERS
    supplied = frozenset({"encoder", "way"})
    default = "maml"


@functools.lru_cache(maxsize=256)
def make_learner(config: LearnerConfig, encoder: nn.Module, *, way: int) -> MetaLearner:
    """The learner that ``config`` names, over ``encoder``, for episodes of ``way`` classes.

    The same arguments give the same object, so that what was compiled for it is found again.
    A factory is called as ``factory(encoder, way=way, **settings)``.

    Raises:
      ValueError: by the factory, for settings out of range, or where it returns something else.
    """
    return config.build(encoder, wanted=MetaLearner, way=way)


def adapts_encoder(name: str) -> bool:
    """Whether the learner of that name may change the encoder's weights from task to task; True for your own."""
    return name not in SHARED_ENCODER
