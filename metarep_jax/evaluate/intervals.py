"""Means with 95% intervals."""

from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """``mean`` ± ``ci95`` over ``n`` independent values; ``ci95`` is None where there is only one."""

    mean: float
    ci95: float | None
    n: int

    def cell(self) -> dict[str, Any]:
        """As a cell of a result file."""
        return self._asdict()


def interval(values: Any) -> Interval:
    """The mean of ``values`` [n] and 1.96 standard errors, the normal interval that few-shot papers print."""
    values = np.asarray(values, np.float64).ravel()
    if values.size == 0:
        raise ValueError("an interval needs at least one value")
    if values.size == 1:
        return Interval(float(values[0]), None, 1)
    return Interval(float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(values.size)), int(values.size))
