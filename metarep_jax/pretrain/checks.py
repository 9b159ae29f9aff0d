"""Settings that no objective can be meant to have, and batches that it cannot train on."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from metarep_jax.types import batch_axis


def check_positive(objective: str, **settings: float | int) -> None:
    """Raises ValueError, naming the ``objective``, for the first setting that is not positive."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{objective}: {name} must be positive, got {value}")


def check_not_negative(objective: str, **settings: float | int) -> None:
    """Raises ValueError, naming the ``objective``, for the first setting that is negative."""
    for name, value in settings.items():
        if not value >= 0:
            raise ValueError(f"{objective}: {name} must not be negative, got {value}")


def check_momentum(objective: str, **settings: float | int) -> None:
    """Raises ValueError, naming the ``objective``, for the first setting outside [0, 1)."""
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise ValueError(f"{objective}: {name} must be in [0, 1), got {value}")


def with_least_batch(
    objective: str, init: Callable[..., tuple[Any, Any]], why: str, least: int = 2
) -> Callable[..., tuple[Any, Any]]:
    """``init`` of an objective, which then raises ValueError for a batch of fewer than ``least`` rows, and says why."""

    def checked(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        if (rows := batch_axis(batch["inputs"])) < least:
            raise ValueError(f"{objective}: a batch must have at least {least} rows, {why}; got a batch of {rows}")
        return init(key, batch, encoder_params)

    return checked
