"""Settings that no objective can be meant to have."""


def check_positive(objective: str, **settings: float | int) -> None:
    """Raises ValueError, naming the ``objective``, for the first setting that is not positive."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{objective}: {name} must be positive, got {value}")


def check_momentum(objective: str, **settings: float | int) -> None:
    """Raises ValueError, naming the ``objective``, for the first setting outside [0, 1)."""
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise ValueError(f"{objective}: {name} must be in [0, 1), got {value}")
