"""Our numbers beside published ones. A result has the published number of ``COLUMN`` in ``COLUMN_published``."""

from typing import Literal, NamedTuple

from metarep_jax.report.results import Cell

SUFFIX = "_published"
ROUNDING = 0.005  # published numbers have two decimals at most
Standing = Literal["above", "within", "below"]


class Published(NamedTuple):
    """``mean`` ± ``ci95`` (None where none was given), and where it stands.

    ``checked`` is False for a number that was quoted from memory and not found again in a text of its paper.
    """

    mean: float
    ci95: float | None
    source: str
    checked: bool = True

    def cell(self) -> Cell:
        """As a cell of a result file; a published number counts as one measurement."""
        return {"mean": self.mean, "ci95": self.ci95, "n": 1}


def published_column(column: str) -> str:
    """The column that holds what was published for ``column``."""
    return f"{column}{SUFFIX}"


def is_published(column: str) -> bool:
    """Whether a column holds published numbers, to be printed beside ours rather than by themselves."""
    return column.endswith(SUFFIX)


def shortfall(ours: Cell, published: Cell, *, higher_is_better: bool) -> float:
    """By how much our mean misses the published interval (or mean, where that is all); 0 within it or beyond it."""
    if standing(ours, published, higher_is_better=higher_is_better) != "below":
        return 0.0
    return _behind(ours, published, higher_is_better) - (published["ci95"] or 0.0)


def standing(ours: Cell, published: Cell, *, higher_is_better: bool) -> Standing:
    """Whether our mean lies within the published interval (or is that mean), above (better) or below."""
    behind, margin = _behind(ours, published, higher_is_better), (published["ci95"] or 0.0) + ROUNDING
    return "below" if behind > margin else "above" if behind < -margin else "within"


def _behind(ours: Cell, published: Cell, higher_is_better: bool) -> float:
    return (published["mean"] - ours["mean"]) * (1 if higher_is_better else -1)
