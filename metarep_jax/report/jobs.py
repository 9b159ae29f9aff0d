"""Jobs one after the other: finished ones are skipped, interrupted ones go on where they stopped."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from metarep_jax.train import RunFolderInUse, Terminated, TrainingDiverged
from metarep_jax.train.signals import catch_termination, time_limit


class Job(NamedTuple):
    """A piece of a table: ``work`` computes it, or goes on with it, and gives a line that says what came out."""

    name: str
    work: Callable[[], str]
    finished: Callable[[], bool]


def run_jobs(
    jobs: Sequence[Job],
    minutes: float | None = None,
    *,
    say: Callable[[str], None],
    say_error: Callable[[BaseException], None],
) -> bool:
    """Computes the jobs that are not finished, in their order. Returns whether all are finished then.

    Stops cleanly after so many ``minutes``; exits with status 143, as a single training does, when asked by SIGTERM.
    A job that fails, or that another process works on, does not keep the others from being computed.

    Args:
      jobs: in the order in which they are computed.
      minutes: after which to stop; None: when all are done.
      say: shows a line of rich's markup.
      say_error: shows why a job failed.

    Raises:
      SystemExit: with status 1 after the last job, where some failed.
    """
    left = [job for job in jobs if not job.finished()]
    failed, busy = [], []

    def say_failed() -> None:
        if failed:
            say(f"failed: {', '.join(failed)}")

    with catch_termination() as asked, time_limit(minutes) as out_of_time:
        for number, job in enumerate(left):
            if asked():
                break
            say(f"[bold]{job.name}[/]: {number + 1} of {len(left)} left")
            try:
                say(f"[bold green]{job.work()}[/]")
            except Terminated:
                break
            except RunFolderInUse:
                busy.append(job.name)
                say(f"{job.name}: another process works on it; left to that")
            except (ValueError, OSError, TrainingDiverged) as error:
                failed.append(job.name)
                say_error(error)
        else:
            say_failed()
            if failed:
                raise SystemExit(1)
            return not busy
        say_failed()
        if not out_of_time():
            raise Terminated("asked to end; the same command goes on")
    undone = [job.name for job in left if not job.finished()]
    say(f"time is up; {len(undone)} left ({', '.join(undone)}); the same command goes on")
    return False
