"""The three stages in a row: features without labels, meta-learned from scratch and from them, and distilled."""

import logging
from typing import Protocol, runtime_checkable

from metarep_jax.data import Splits
from metarep_jax.encoders import EncoderConfig
from metarep_jax.model import Model
from metarep_jax.stages.checks import flags_below
from metarep_jax.stages.columns import EvaluateSettings
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.distil import DistilSettings, distil, plan_few_shot
from metarep_jax.stages.evaluate import BASELINES, few_shot_columns, frozen_features
from metarep_jax.stages.features import untrained_model
from metarep_jax.stages.metatrain import MetatrainSettings, check_metatrain, metatrain
from metarep_jax.stages.pretrain import PretrainSettings, pretrain

log = logging.getLogger(__name__)
TEACHER_EPISODES = 1000  # on validation classes, by which the teacher is chosen


@runtime_checkable
class PipelineSettings(Protocol):
    """The settings of all stages; ``second`` is another learner beside ``meta``, trained where ``with_second``."""

    @property
    def encoder(self) -> EncoderConfig: ...
    @property
    def pretrain(self) -> PretrainSettings: ...
    @property
    def meta(self) -> MetatrainSettings: ...
    @property
    def second(self) -> MetatrainSettings: ...
    @property
    def with_second(self) -> bool: ...
    @property
    def distill(self) -> DistilSettings: ...


def pipeline(settings: PipelineSettings, splits: Splits, compute: Compute) -> dict[str, Model]:
    """The models of every stage by name, from untrained to student; the better of two learners teaches the student.

    Args:
      settings: of the stages.
      splits: the data.
      compute: each stage writes a folder of its own below its folder.

    Raises:
      ValueError: before the first stage, for settings of any stage that do not fit each other, the data or the devices.
    """
    check_stages(settings, splits, compute)
    encoder, whiten = settings.encoder, settings.pretrain.whiten
    pretrained = pretrain(settings.pretrain, splits, compute.below("pretrain"), encoder=encoder)
    models = {
        "untrained": untrained_model(encoder, splits, compute, whiten),
        "pretrained": pretrained,
        "pretrained_logistic": frozen_features(pretrained, BASELINES["logistic regression"]),
    }
    for label, learner in _learners(settings).items():
        for begin, start in {"scratch": None, "pretrained": pretrained}.items():
            row = f"{label}_{begin}"
            models[row] = metatrain(
                learner,
                splits,
                compute.below(row),
                start=start,
                encoder=encoder,
                features=pretrained if learner.tasks.source == "clusters" else None,
                what=row.replace("_", ", from "),
            )
    teacher = best_teacher(models, splits, compute)
    models["student"] = distil(settings.distill, splits, teacher, compute.below("student"))
    return models


def check_stages(settings: PipelineSettings, splits: Splits, compute: Compute) -> None:
    """Raises ValueError for what a later stage would refuse once those before it were trained."""
    ways = {}
    for label, learner in _learners(settings).items():
        flags = "meta" if label == "meta" else "second"
        with flags_below(flags):
            ways[label] = check_metatrain(learner, splits, compute, settings.encoder, flags)
    with flags_below("distill"):
        plan_few_shot(settings.distill, splits, compute, ways["meta"])


def _learners(settings: PipelineSettings) -> dict[str, MetatrainSettings]:
    second = {settings.second.learner.name.rpartition(":")[2]: settings.second} if settings.with_second else {}
    return {"meta": settings.meta, **second}


def best_teacher(models: dict[str, Model], splits: Splits, compute: Compute) -> Model:
    """The meta-learned model that does better on the validation classes."""
    rows, pool = {row: models[row] for row in ("meta_scratch", "meta_pretrained")}, splits.val
    if not pool.count.size:
        return rows["meta_pretrained"]
    way = models["meta_scratch"].spec.way if models["meta_scratch"].fixed_way else min(5, pool.count.shape[0])
    specs = EvaluateSettings(ways=(way,), shots=(1,)).specs(splits.protocol, pool)
    if not specs:
        return rows["meta_pretrained"]
    scores = {
        row: few_shot_columns(model, splits, specs, compute, part="val", episodes=TEACHER_EPISODES)[specs[0].name].mean
        for row, model in rows.items()
    }
    best = max(scores, key=lambda row: scores[row])
    told = ", ".join(f"{row} {score:.2f}%" for row, score in scores.items())
    log.info("teacher: %s (%s on validation)", best, told)
    return rows[best]
