"""Checks of an encoder's settings, when it is constructed: before anything compiles."""

from typing import Any

from flax import linen as nn


def check_choices(encoder: nn.Module, **choices: tuple[str, ...]) -> None:
    """Raises ValueError where a setting, by its keyword, is none of the values listed for it."""
    for keyword, known in choices.items():
        value = getattr(encoder, keyword)
        if value not in known:
            raise ValueError(f"{_class(encoder)}: unknown {keyword} {value!r}; there are: {', '.join(known)}")


def check_positive(encoder: nn.Module, *keywords: str) -> None:
    """Raises ValueError where one of these settings, or one of its numbers, is not positive."""
    for keyword in keywords:
        value: Any = getattr(encoder, keyword)
        if isinstance(value, tuple) and not value:
            raise ValueError(f"{_class(encoder)}: {keyword} must hold at least one number, got none")
        if min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise ValueError(f"{_class(encoder)}: {keyword} must be positive, got {value}")


def _class(encoder: nn.Module) -> str:
    return type(encoder).__name__
