"""How much of a streamed run's time the devices stand idle because their next batches are not there yet."""

import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jaxtyping import PyTree

from metarep_jax.types import Reader

log = logging.getLogger(__name__)

WORTH_SAYING = 0.1  # of the time; below it, more reading processes would make no run noticeably shorter
ADVICE = "let the reader read faster or ahead"  # for readers that have no ``advice`` of their own


class WaitingTime:
    """The share of dispatches' time in which devices wait for batches; the first dispatch, which compiles, is left out.

    Without a reader it measures nothing.
    """

    def __init__(self, reader: Reader | None, description: str = "train"):
        self._reader, self._description = reader, description
        self._threads = ThreadPoolExecutor(1, "devices done") if reader is not None else None
        self._line, self._run = _Share(), _Share()
        self._compiled = self._said = False

    @contextlib.contextmanager
    def measure(self, began: float, outputs: PyTree) -> Iterator[None]:
        """Around the preparation of the next batches, while the devices compute ``outputs``; waits for both.

        Args:
          began: when this dispatch did, by ``time.perf_counter``.
          outputs: arrays that are ready when the devices are done.
        """
        if self._threads is None or not self._compiled:
            self._compiled = True
            yield
            return
        done_at = self._threads.submit(_ready_at, outputs)
        yield
        prepared = time.perf_counter()
        done = done_at.result()
        for share in (self._line, self._run):
            share.waited += max(0.0, prepared - done)
            share.total += max(prepared, done) - began

    def end_line(self) -> dict[str, float]:
        """``waiting_share`` of the time since the last call, or {}; says so where it is much, and the last was not."""
        share, self._line = self._line.value, _Share()
        if share is None:
            return {}
        if share > WORTH_SAYING and not self._said:
            advice = getattr(self._reader, "advice", ADVICE)
            log.warning("%s: the devices wait for data %.0f%% of the time; %s", self._description, 100 * share, advice)
        self._said = share > WORTH_SAYING
        return {"waiting_share": share}

    def in_words(self) -> str:
        """The share of the whole run so far, for the display, or ""."""
        share = self._run.value
        return "" if share is None else f"waits for data {share:.0%}"

    def close(self) -> None:
        """Ends its thread."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)


class _Share:
    waited = 0.0  # seconds
    total = 0.0

    @property
    def value(self) -> float | None:
        return self.waited / self.total if self.total else None


def _ready_at(outputs: Any) -> float:
    jax.block_until_ready(outputs)
    return time.perf_counter()
