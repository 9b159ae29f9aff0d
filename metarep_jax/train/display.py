"""How a run shows itself: a progress bar in a terminal, a line of the log now and then elsewhere."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0  # between two lines of the log
SHOWN = 4  # metrics, beside the loss

Show = Callable[[int, dict[str, float]], None]  # (step, metrics so far)


@contextlib.contextmanager
def display(description: str, start: int, total: int, *, visible: bool = True) -> Iterator[Show]:
    """Gives a function to call after every dispatch with the step and the latest metrics."""
    if not visible:
        yield lambda step, metrics: None
    elif rich.get_console().is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
        )
        with Progress(*columns, console=rich.get_console()) as progress:
            task = progress.add_task(description, total=total, completed=start, shown="compiling")
            yield lambda step, metrics: progress.update(task, completed=step, shown=in_words(metrics))
    else:
        yield _lines(description, start, total)


def in_words(metrics: dict[str, float]) -> str:
    """The loss and a few more metrics, short."""
    names = sorted((name for name in metrics if "/" not in name), key=lambda name: (name != "loss", "val" not in name))
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names[: SHOWN + 1])


def _lines(description: str, start: int, total: int) -> Show:
    began, said = time.monotonic(), time.monotonic()

    def show(step: int, metrics: dict[str, float]) -> None:
        nonlocal said
        now = time.monotonic()
        if step < total and now - said < LINE_SECONDS:
            return
        said = now
        rate = (step - start) / max(now - began, 1e-9)
        left = f", {(total - step) / max(rate, 1e-9) / 60:.1f} min left" if step < total else ""
        log.info("%s: step %d of %d, %.3g steps/s%s; %s", description, step, total, rate, left, in_words(metrics))

    return show
