"""What is known of a model beside its arrays, and its JSON form, which carries a version."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cattrs

from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model.migrate import VERSION, migrate
from metarep_jax.model.trust import refuse_strangers


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What is needed, beside the arrays, to build a model again."""

    kind: Literal["learner", "classifier"]
    encoder: EncoderConfig
    learner: LearnerConfig
    shape: tuple[int, ...]  # of one input, such as (28, 28, 1)
    way: int = 5  # learner: classes of an episode
    class_names: tuple[str, ...] = ()  # classifier: its classes
    tokenizer: str = ""  # of text: the digest of the tokenizer whose ids it takes


def spec_to_json(spec: ModelSpec) -> dict[str, Any]:
    """The spec as plain values: every setting with its value, so that a later default changes no saved model."""
    return {"version": VERSION, **cattrs.unstructure(spec)}


def spec_of_json(plain: Mapping[str, Any], place: Any, allow: Sequence[str] | str = ()) -> ModelSpec:
    """The spec of plain values, of this version or an older one.

    Args:
      plain: what ``spec_to_json`` gave, perhaps long ago.
      place: where it was read, for messages.
      allow: modules whose code may run; see ``trust.refuse_strangers``.

    Raises:
      ValueError: for a newer version, code that is not allowed, or values that no spec has.
    """
    refuse_strangers(plain, place, allow)
    plain = migrate(plain, place)
    names = {field.name for field in dataclasses.fields(ModelSpec)}
    try:
        return cattrs.structure({key: value for key, value in plain.items() if key in names}, ModelSpec)
    except (cattrs.BaseValidationError, KeyError, TypeError) as error:
        reasons = [repr(error)]
        if isinstance(error, cattrs.BaseValidationError):
            reasons = cattrs.transform_error(error, format_exception=_reason)
        raise ValueError(f"{place} does not describe a model of this version: {'; '.join(reasons)}") from error


def _reason(error: BaseException, kind: type | None) -> str:
    """What a settings class says itself; else what cattrs does."""
    return str(error) if isinstance(error, ValueError) else cattrs.v.format_exception(error, kind)
