"""Settings of another type than their annotation are refused where they are given, in words."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from metarep_jax import data, stages, train, types
from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.typed_settings import Settings, describe_type, fits


@dataclasses.dataclass(frozen=True)
class Inner(Settings):
    """Settings of a test: those of the library are checked by the import hook of the tests before they check."""

    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Outer(Settings):
    """Settings that hold others."""

    steps: int = 1
    ways: tuple[int, ...] | None = None
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Outer(steps=1.5), "Outer.steps takes a whole number, got 1.5"),
        (lambda: Outer(steps="5"), "Outer.steps takes a whole number, got '5'"),
        (lambda: Outer(steps=True), "Outer.steps takes a whole number, got True"),
        (lambda: Outer(ways=5), r"Outer.ways takes a tuple \(a whole number, …\) or None, got 5"),
        (lambda: Outer(inner={}), "Outer.inner takes Inner, got {}"),
        (lambda: Inner(rate=None), "Inner.rate takes a number, got None"),
        (lambda: EncoderConfig("mlp", width="a"), "the encoder mlp: width takes a whole number, got 'a'"),
        (lambda: LearnerConfig("maml", inner_lr="0.4"), "the learner maml: inner_lr takes a number, got '0.4'"),
    ],
)
def test_another_type_is_named_with_the_one_that_is_wanted(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("module", [data, stages, train, types])
def test_every_settings_class_of_the_library_is_checked(module):
    public = [getattr(module, name) for name in dir(module) if name.endswith(("Settings", "Spec", "FitConfig"))]
    assert all(issubclass(kind, Settings) for kind in public if dataclasses.is_dataclass(kind))


def test_numbers_of_numpy_become_pythons_which_json_writes():
    assert type(Outer(steps=np.int64(5)).steps) is int
    assert type(EncoderConfig(width=np.int32(8)).settings["width"]) is int


@pytest.mark.parametrize(
    ("value", "hint", "does"),
    [
        (1, float, True),
        (1.0, int, False),
        (False, int, False),
        (0, bool, False),
        ("x", Path, True),
        (3, Path | None, False),
        ((1, 2), tuple[int, ...], True),
        ((1, 2), tuple[int, int, int], False),
        ([1], tuple[int, ...], False),
        ("b", Literal["a"], True),  # which there are is said by whoever reads it
        (2, Literal["a"], False),
        (object(), Any, True),
    ],
)
def test_what_fits_an_annotation(value, hint, does):
    assert fits(value, hint) == does


def test_types_are_described_in_words():
    assert describe_type(tuple[float, int] | None) == "a tuple (a number, a whole number) or None"
