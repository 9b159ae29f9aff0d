"""Settings of cells as they are written today: one migration for the cells of all earlier versions.

A cell's identity is its settings and, beside them, the version of its row's definition. Cells without that number are
of version 1 and hold their encoders, learners and objectives as unions of all methods' settings, None for what was not
given; what a method did not have was of no effect. Whatever came later is filled in with its default, which is what
held before it came; where that is not so, the rows concerned have another version.
"""

from collections.abc import Mapping
from typing import Any

import cattrs

from metarep_jax.choices import Choice
from metarep_jax.data.tasks.pseudo_tasks import TaskConfig
from metarep_jax.encoders import EncoderConfig, encoder_from_union
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.report.results import Result
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import EpisodeSpec

KINDS: dict[str, Any] = {
    "encoder": EncoderConfig,
    "learner": LearnerConfig,
    "objective": ObjectiveConfig,
    "optimiser": OptimiserConfig,
    "train": FitConfig,
    "tasks": TaskConfig,
    "episode": EpisodeSpec,
    "test": EpisodeSpec,
    "of": EpisodeSpec,  # of a validation
}
LATER: dict[str, dict[str, Any]] = {  # what dicts of these names did not have at first
    "lever": {"projector": False, "distilled": False},
    "rounds": {"whiten_after": None},
    "validation": {"of": None},
}
GONE = {"note", "ms"}  # of recipes: they changed no number


def migrated_settings(cell: Result) -> dict[str, Any]:
    """The settings of a cell as its row writes them today; {} where they name something that is no longer there."""
    try:
        settings = _today("", cell.config["settings"], union="version" not in cell.config)
    except (TypeError, ValueError, KeyError):
        return {}
    return {"data": cell.name, **settings} if cell.name == "sinusoid" else settings


def _today(name: str, value: Any, union: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_today(name, each, union) for each in value]
    if not isinstance(value, Mapping):
        return bool(value) if union and name in LATER["lever"] else value
    if name in KINDS:
        return cattrs.unstructure(_of_union(KINDS[name], value) if union else KINDS[name](**value))
    gone = GONE | ({"views"} if union and name == "recipe" and not value["views"] else set())
    value = {key: each for key, each in value.items() if key not in gone}
    if union and "objective" in value:
        value |= {key: value["objective"].get(key, 0) for key in ("neighbours", "neighbours_after")}
    return {key: _today(key, each, union) for key, each in (LATER.get(name, {}) | value).items()}


def _of_union(kind: Any, value: Mapping[str, Any]) -> Any:
    if kind is EncoderConfig:
        return encoder_from_union(value)
    if not issubclass(kind, Choice):
        return kind(**value)
    has = kind.settings_of(value["name"])
    return kind(value["name"], **{key: each for key, each in value.items() if key in has and each is not None})
