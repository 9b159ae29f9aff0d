"""Small data, settings and folders for tests of stages: images of 4 × 4 pixels and an encoder that compiles quickly."""

from typing import Any

import numpy as np

from metarep_jax.data import Splits, splits_from_arrays
from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.stages import (
    ClassSettings,
    Compute,
    DistilSettings,
    EvaluateSettings,
    MetatrainSettings,
    PretrainSettings,
)
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import EpisodeSpec

SIZE = 4
ENCODER = EncoderConfig("mlp", width=3)
FEW = EvaluateSettings(ways=(2,), shots=(1,), episodes=4)


def images(classes: int, each: int = 6, seed: int = 0, size: int = SIZE, channels: int = 1) -> np.ndarray:
    """Noisy copies of a random pattern a class, in the classes' order."""
    random = np.random.default_rng(seed)
    pattern = random.integers(0, 200, (classes, 1, size, size, channels))
    noisy = pattern + random.integers(0, 50, (classes, each, size, size, channels))
    return noisy.reshape(-1, size, size, channels).astype(np.uint8)


def part(names: str, each: int = 6, **shape: Any) -> tuple[np.ndarray, list[str]]:
    """Images of classes that are called by the letters of ``names``, and their labels."""
    return images(len(names), each, **shape), [name for name in names for _ in range(each)]


def few_shot_data(
    train: str = "abcde", val: str = "fgh", test: str = "xyz", name: str = "letters", **shape: Any
) -> Splits:
    """Splits whose test classes are new."""
    return splits_from_arrays(
        part(train, **shape), part(val, **shape) if val else None, part(test, **shape), name=name, fixed_classes=False
    )


def fit_config(steps: int = 2, batch_size: int = 4, **more: Any) -> FitConfig:
    """A training of few steps that writes and shows little."""
    return FitConfig(steps=steps, batch_size=batch_size, tensorboard=False, progress=False, **more)


def pretrain_settings(**changed: Any) -> PretrainSettings:
    """Of a training of two steps."""
    settings = {
        "objective": ObjectiveConfig("simclr"),
        "augment": "none",
        "optimiser": OptimiserConfig(),
        "train": fit_config(),
    }
    return PretrainSettings(**{**settings, **changed})


def metatrain_settings(**changed: Any) -> MetatrainSettings:
    """Of a training of two steps."""
    settings = {
        "learner": LearnerConfig("prototypical"),
        "episode": EpisodeSpec(2, 1, 2),
        "train": fit_config(batch_size=2),
        "validation_episodes": 4,
    }
    return MetatrainSettings(**{**settings, **changed})


def distil_settings(**changed: Any) -> DistilSettings:
    """Of a training of two steps."""
    settings = {
        "student": EncoderConfig("mlp", width=2),
        "episode": EpisodeSpec(2, 1, 2),
        "train": fit_config(batch_size=2),
        "validation_episodes": 4,
    }
    return DistilSettings(**{**settings, **changed})


def class_settings(**changed: Any) -> ClassSettings:
    """Of a training of two steps."""
    return ClassSettings(**{"encoder": ENCODER, "train": fit_config(), **changed})


def compute(folder: Any) -> Compute:
    """In a folder, on one device."""
    return Compute(folder, devices=1)
