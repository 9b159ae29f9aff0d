"""Settings that no learner can be meant to have: refused by the factory itself, before anything compiles."""

from typing import Any, get_args


def check_positive(learner: str, **settings: float | int | None) -> None:
    """Raises ValueError, naming the ``learner``, for the first setting that is neither None nor positive."""
    for name, value in settings.items():
        if value is not None and not value > 0:
            raise ValueError(f"{learner}: {name} must be positive, got {value}")


def check_at_least(least: int, learner: str, **settings: float | int | None) -> None:
    """Raises ValueError, naming the ``learner``, for the first setting that is below ``least``, and not None."""
    for name, value in settings.items():
        if value is not None and not value >= least:
            raise ValueError(f"{learner}: {name} must be at least {least}, got {value}")


def check_one_of(kinds: Any, learner: str, **settings: Any) -> None:
    """Raises ValueError, naming the ``learner``, for the first setting that is none of the Literal ``kinds``."""
    names = get_args(kinds)
    for name, value in settings.items():
        if value not in names:
            listed = ", ".join(map(str, names))
            raise ValueError(f"{learner}: unknown {name} {value!r}; there are: {listed}")
