"""SIGTERM and Ctrl-C (SIGINT) ask a run to save and go."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(SystemExit):
    """The run was asked to end; its state is saved.

    Unless caught it ends the process with the status by which shells and schedulers know the signal: 143 for SIGTERM,
    130 for SIGINT.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM):
        super().__init__(128 + number)
        self.message = message

    def __str__(self) -> str:
        return self.message


@contextlib.contextmanager
def shield_children() -> Iterator[None]:
    """Processes that this thread starts in the block are not interrupted by Ctrl-C, which a terminal sends to them too.

    They end when the run, which saves first, ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it later, with the first child, would undo the mask on Python 3.11
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_listening: list[Callable[[], int]] = []  # the outermost listener's function, while it listens


@contextlib.contextmanager
def catch_termination() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the number of the signal that came, SIGTERM or SIGINT, or 0 before one does.

    A second signal acts at once: SIGTERM ends the process, Ctrl-C raises KeyboardInterrupt. Nested in another, it
    gives the outer one's function: all know of a signal since the outermost began. Signals reach the main thread only:
    in another one the function always returns 0.
    """
    came: list[int] = []

    def number_of_signal() -> int:
        return came[0] if came else 0

    if threading.current_thread() is not threading.main_thread():
        yield number_of_signal
        return
    if _listening:
        yield _listening[0]
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def notice(number: int, frame: object) -> None:
        del frame
        came.append(number)
        restore()

    for number in SIGNALS:
        signal.signal(number, notice)
    _listening.append(number_of_signal)
    try:
        yield number_of_signal
    finally:
        _listening.clear()
        restore()


@contextlib.contextmanager
def time_limit(minutes: float | None) -> Iterator[Callable[[], bool]]:
    """Asks this process to end, as SIGTERM does, after so many minutes; gives a function that says whether it did."""
    came = threading.Event()

    def end() -> None:
        came.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(60 * (minutes or 0.0), end)
    timer.daemon = True
    if minutes is not None:
        timer.start()
    try:
        yield came.is_set
    finally:
        timer.cancel()
