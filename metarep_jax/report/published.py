"""Our numbers beside published ones. A result has the published number of ``COLUMN`` in ``COLUMN_published``."""

from typing import Literal

from metarep_jax.report.results import Cell

SUFFIX = "_published"
ROUNDING = 1e-9  # 98.7 − 98.3 is not 0.4 to a computer
Standing = Literal["above", "within", "below"]


def published_column(column: str) -> str:
    """The column that holds what was published for ``column``."""
    return f"{column}{SUFFIX}"


def is_published(column: str) -> bool:
    """Whether a column holds published numbers, to be printed beside ours rather than by themselves."""
    return column.endswith(SUFFIX)


def shortfall(ours: Cell, published: Cell, *, higher_is_better: bool) -> float:
    """By how much our mean misses the published interval; 0 within it or beyond it.

    Where nothing but a mean was published, our own interval stands in.
    """
    return max(_behind(ours, published, higher_is_better) - _margin(ours, published), 0.0)


def standing(ours: Cell, published: Cell, *, higher_is_better: bool) -> Standing:
    """Whether our mean lies within the published interval (or ours, see ``shortfall``), above (better) or below."""
    behind, margin = _behind(ours, published, higher_is_better), _margin(ours, published)
    return "below" if behind > margin else "above" if behind < -margin else "within"


def _behind(ours: Cell, published: Cell, higher_is_better: bool) -> float:
    return (published["mean"] - ours["mean"]) * (1 if higher_is_better else -1)


def _margin(ours: Cell, published: Cell) -> float:
    interval = published["ci95"] if published["ci95"] is not None else ours["ci95"]
    return (interval or 0.0) + ROUNDING
