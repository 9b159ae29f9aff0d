"""Progress of long work: a bar in a terminal, a line of the log now and then elsewhere, both with the time left."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0  # between two lines of the log
SHOWN = 4  # metrics, beside the loss

_bars: list[Progress] = []  # the terminal's display, while there is one: work inside other work adds a bar to it


@contextlib.contextmanager
def track(
    description: str, total: int, *, unit: str = "steps", start: int = 0, note: str = "", visible: bool = True
) -> Iterator[Callable[..., None]]:
    """Gives a function ``advance(done, note="")`` to call now and then with how much of ``total`` is done.

    Args:
      description: of the work, in a word or two.
      total: how much there is to do.
      unit: what is counted.
      start: how much was done before.
      note: what to show behind the bar before the first call.
      visible: False shows nothing.
    """
    if not visible:
        yield lambda done, note="": None
    elif rich.get_console().is_terminal:
        nested = bool(_bars)
        with _terminal() as progress:
            task = progress.add_task(description, total=total, completed=start, note=note)
            try:
                yield lambda done, note="": progress.update(task, completed=done, note=note)
            finally:
                if nested:
                    progress.remove_task(task)  # the outer work's bar stays
    else:
        yield _log_lines(description, total, unit, start)


@contextlib.contextmanager
def track_training(description: str, start: int, total: int, *, visible: bool = True) -> Iterator[Callable[..., None]]:
    """Gives a function ``show(step, metrics, more="")`` to call after every dispatch."""
    with track(description, total, start=start, note="compiling", visible=visible) as advance:
        yield lambda step, metrics, more="": advance(step, ", ".join(filter(None, (metrics_in_words(metrics), more))))


def metrics_in_words(metrics: dict[str, float]) -> str:
    """The loss and a few more metrics, short."""
    names = sorted((name for name in metrics if "/" not in name), key=lambda name: (name != "loss", "val" not in name))
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names[: SHOWN + 1])


@contextlib.contextmanager
def _terminal() -> Iterator[Progress]:
    """The bars on show, or new ones."""
    if _bars:
        yield _bars[0]
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=rich.get_console()) as progress:
        _bars.append(progress)
        try:
            yield progress
        finally:
            _bars.clear()


def _log_lines(description: str, total: int, unit: str, start: int) -> Callable[..., None]:
    began = last_line = time.monotonic()

    def advance(done: int, note: str = "") -> None:
        nonlocal last_line
        now = time.monotonic()
        if done < total and now - last_line < LINE_SECONDS:
            return
        last_line = now
        rate = (done - start) / max(now - began, 1e-9)
        left = f", {(total - done) / max(rate, 1e-9) / 60:.1f} min left" if done < total else ""
        line = f"{unit.removesuffix('s')} {done} of {total}, {rate:.3g} {unit}/s{left}"
        log.info("%s: %s", description, f"{line}; {note}" if note else line)

    return advance
