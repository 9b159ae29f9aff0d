"""Step sizes that serve policies best at test, by their returns on tasks of their own."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

log = logging.getLogger(__name__)
Rates = tuple[float, float]  # step sizes of the first and of later updates


class Policy(NamedTuple):
    """An initial policy, and the step sizes of its first and its later updates."""

    params: Any
    state: Any
    rate: float
    later: float


Judge = Callable[[Policy, int], Float[np.ndarray, "tasks updates_and_one"]]  # (policy, seed) -> returns


def choose_step_sizes(
    judge: Judge, weights: Sequence[Any], tried: Sequence[float], *, what: str, first: float | None = None
) -> Rates:
    """The step size of the highest return after the first update, then that of the later ones.

    Args:
      judge: returns after 0, 1, … updates of a policy; the seed says on which tasks.
      weights: parameters and state of a policy a seed; all get the same step sizes.
      tried: step sizes to choose from; of later updates also none.
      what: names the policies in the log.
      first: the step size of the first update, where it is fixed, as MAML's is by its training.
    """
    if first is None:
        pairs = [(rate, 0.0) for rate in tried]
        first, _ = _best(judge, weights, pairs, slice(1, 2), f"{what}: return after 1 update")
    pairs = [(first, later) for later in (0.0, *tried)]
    return _best(judge, weights, pairs, slice(2, None), f"{what}: mean return after later updates")


def _best(judge: Judge, weights: Sequence[Any], tried: Sequence[Rates], columns: slice, what: str) -> Rates:
    def value(rates: Rates) -> float:
        policies = [Policy(params, state, *rates) for params, state in weights]
        return float(np.mean([judge(policy, seed)[:, columns] for seed, policy in enumerate(policies)]))

    values = [value(rates) for rates in tried]
    each = (f"{first:g}, {later:g}: {value:.1f}" for (first, later), value in zip(tried, values, strict=True))
    log.info("%s by step sizes: %s", what, ", ".join(each))
    return tried[int(np.argmax(np.nan_to_num(values, nan=-np.inf)))]
