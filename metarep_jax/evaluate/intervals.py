"""Means with 95% intervals."""

from collections.abc import Sequence
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


def paired_difference(first: Any, second: Any) -> Interval:
    """The mean of ``first`` − ``second`` over the same episodes [n], or seeds and episodes, with its 95% interval.

    What makes an episode hard for both cancels, so that smaller differences show than by the rows' own intervals.
    """
    first, second = (np.asarray(values, np.float64).ravel() for values in (first, second))
    if first.shape != second.shape:
        raise ValueError(f"a paired difference needs the same episodes, got {first.size} and {second.size}")
    return interval(first - second)


def interval_over_seeds(found: Sequence[Interval], *, one_test: bool = False) -> Interval:
    """The mean of several seeds' means; its interval is the wider one of that over episodes and that over seeds.

    Seeds are few, so that theirs is Student's: 12.7 standard errors of two, 4.3 of three.

    Args:
      found: a seed each.
      one_test: whether all seeds are judged on the same examples, of which more seeds do not make more.
    """
    from scipy.stats import t

    means = np.array([each.mean for each in found])
    episodes = np.sqrt(sum((each.ci95 or 0.0) ** 2 for each in found)) / len(found)
    if one_test:
        episodes = np.mean([each.ci95 or 0.0 for each in found])
    spread = 0.0
    if len(found) > 1:
        spread = t.ppf(0.975, len(found) - 1) * means.std(ddof=1) / np.sqrt(len(found))
    count = max(each.n for each in found) if one_test else sum(each.n for each in found)
    return Interval(float(means.mean()), float(max(episodes, spread)), count)


def interval_over_folds(found: Sequence[Interval]) -> Interval:
    """The mean of the folds' means; its interval is the wider one of that over all episodes and that over the folds.

    The folds test on different classes, and these differ more than episodes do: over five folds, 2.8 standard errors of
    their means (Student). It says where the mean over other classes would lie, and is still too narrow for that where
    some classes are in several folds. Rows that are judged on the same episodes of the same folds differ by less noise
    than their intervals show.
    """
    return interval_over_seeds(found)
