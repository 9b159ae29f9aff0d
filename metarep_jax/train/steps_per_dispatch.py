"""How many steps the devices do before the host looks again."""

import numpy as np

from metarep_jax.train.processes import gather_processes

DISPATCH_SECONDS = 2.0  # aimed at: a signal and the progress bar wait no longer


class StepsPerDispatch:
    """A ``count`` of steps that takes about ``DISPATCH_SECONDS``, at most ``most``; the same on all processes.

    Results do not depend on it: steps are the same compiled loop body however they are divided.
    """

    def __init__(self, most: int):
        self.count, self._most, self._dispatches = 1, most, 0

    def update(self, count: int, seconds: float, signal: int) -> int:
        """Adapts to a dispatch of ``count`` steps that took ``seconds``.

        Returns:
          The number of the signal by which some process was asked to end, or 0.
        """
        each, asked = gather_processes(np.asarray([seconds / count, float(signal)])).max(axis=0)
        self._dispatches += 1
        if self._dispatches > 1:  # the first one compiles
            self.count = int(np.clip(DISPATCH_SECONDS / max(each, 1e-9), 1, self._most))
        return int(asked)
