"""What a distillation loss asks for: layers of encoders, a teacher, and what batches must have."""

from typing import Any

from metarep_jax.types import Term

HEADS = frozenset({"logits", "mean", "features"})  # every model returns those that it has; other layers are asked for


def encoder_layers(layers: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the layers that an encoder returns on request alone."""
    return tuple(name for name in layers if name not in HEADS)


def check_teacher(loss: Term, teacher: Any) -> None:
    """Raises ValueError where terms read outputs of a teacher and there is none."""
    if teacher is None and loss.asks_of_teacher:
        names = ", ".join(loss.asks_of_teacher)
        raise ValueError(f"this distillation loss reads {names} of a teacher, and there is none; give teacher=...")


def check_needs(loss: Term, batch: dict, what: str) -> None:
    """Raises ValueError where ``batch`` lacks what terms need; ``what`` names the kind of data."""
    if missing := [name for name in loss.needs if batch.get(name) is None]:
        has = ", ".join(sorted(name for name, rows in batch.items() if rows is not None))
        raise ValueError(f"this distillation loss needs {', '.join(missing)} of {what}, which have: {has}")
