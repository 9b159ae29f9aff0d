"""The stages as functions of settings, data and a ``Compute``: each returns a ``Model``.

features = pretrain(PretrainSettings(), splits, Compute("runs/features"))
learner = metatrain(MetatrainSettings(), splits, Compute("runs/learner"), start=features)
student = distil(DistilSettings(), splits, learner, Compute("runs/student"))
evaluate(student, splits)
"""

from metarep_jax.stages.columns import EvaluateSettings
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.distil import DistilSettings, distil
from metarep_jax.stages.evaluate import evaluate
from metarep_jax.stages.metatrain import MetatrainSettings, metatrain
from metarep_jax.stages.pretrain import PretrainSettings, pretrain
from metarep_jax.stages.rounds import RoundsSettings, rounds
from metarep_jax.stages.transfer import ClassSettings, class_accuracy, transfer

__all__ = [
    "ClassSettings",
    "Compute",
    "DistilSettings",
    "EvaluateSettings",
    "MetatrainSettings",
    "PretrainSettings",
    "RoundsSettings",
    "class_accuracy",
    "distil",
    "evaluate",
    "metatrain",
    "pretrain",
    "rounds",
    "transfer",
]
