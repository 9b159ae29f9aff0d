"""Specs of older models, brought to the version of today."""

from collections.abc import Mapping
from typing import Any

import cattrs

from metarep_jax.encoders import encoder_from_union
from metarep_jax.metalearn import LearnerConfig

VERSION = 2  # of spec.json; 1 had no number: an encoder and a learner were a union of all settings

REPADDED = ("resnet18", "resnet34", "resnet50")  # whose padding version 2 defines otherwise


def migrate(plain: Mapping[str, Any], place: Any) -> dict[str, Any]:
    """A spec's plain values as version 2 writes them.

    Version 1 kept the settings of all encoders and of all learners, whichever was named. A setting that the named one
    does not have was of no effect and is left out; None of a learner meant its default.

    Args:
      plain: of a ``spec.json``.
      place: where it was read, for messages.

    Raises:
      ValueError: for a version that is newer than this library's, or a model whose definition is no longer there.
    """
    version = plain.get("version", 1)
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ValueError(
            f"{place} has version {version}, this library reads versions 1 to {VERSION}: it was written by a newer "
            "metarep_jax; install that, or save the model anew with this one"
        )
    if version == VERSION:
        return dict(plain)
    name = plain["encoder"]["name"]
    if name in REPADDED:
        raise ValueError(
            f"{place} is of version 1, when strided convolutions of {name} padded one side only; since version 2 they "
            "pad both, as torchvision's do, and its weights would compute other features. Train it anew, or load it "
            "with the metarep_jax that wrote it"
        )
    learner = plain["learner"]
    has = LearnerConfig.settings_of(learner["name"])
    chosen = {key: value for key, value in learner.items() if key in has and value is not None}
    return {
        **plain,
        "version": VERSION,
        "encoder": cattrs.unstructure(encoder_from_union(plain["encoder"])),
        "learner": {"name": learner["name"], **chosen},
    }
