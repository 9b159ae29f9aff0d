"""SIGTERM asks a run to save and go."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

TERMINATED = 128 + signal.SIGTERM  # 143: the exit status by which shells and schedulers know it


class Terminated(SystemExit):
    """The run was asked to end; its state is saved. Ends the process with status 143 unless caught."""

    def __init__(self, message: str):
        super().__init__(TERMINATED)
        self.message = message

    def __str__(self) -> str:
        return self.message


_listening: list[Callable[[], bool]] = []  # what the outermost of nested listeners gave, while it listens


@contextlib.contextmanager
def catch_termination() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGTERM has come; a second SIGTERM acts at once.

    Nested in another, it gives what the other gave: all know of a signal since the outermost began. Signals reach the
    main thread only: in another one the function always says no.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    if _listening:
        yield _listening[0]
        return
    before = signal.getsignal(signal.SIGTERM)

    def notice(number: int, frame: object) -> None:
        del number, frame
        came.set()
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, notice)
    _listening.append(came.is_set)
    try:
        yield came.is_set
    finally:
        _listening.clear()
        signal.signal(signal.SIGTERM, before)
