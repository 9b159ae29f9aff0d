"""Jobs in a row: what is finished is skipped, what failed keeps nothing from being computed."""

import pytest

from metarep_jax.report.jobs import Job, run_jobs
from metarep_jax.train import Terminated


def test_finished_jobs_are_skipped_and_a_failing_one_keeps_no_other_from_being_computed():
    done, said, errors = [], [], []

    def fails():
        raise ValueError("no such data")

    jobs = [
        Job("first", fails, lambda: False),
        Job("second", lambda: done.append("second") or "second came", lambda: False),
        Job("third", lambda: done.append("third") or "", lambda: True),
    ]
    with pytest.raises(SystemExit) as ended:
        run_jobs(jobs, say=said.append, say_error=errors.append)
    assert ended.value.code == 1 and done == ["second"] and "failed: first" in said
    assert [str(error) for error in errors] == ["no such data"]
    assert run_jobs(jobs[1:], say=said.append, say_error=errors.append) and done == ["second", "second"]


def test_a_job_that_is_asked_to_end_ends_them_all():
    def asked():
        raise Terminated("now")

    jobs, said = [Job("first", asked, lambda: False), Job("second", asked, lambda: False)], []
    with pytest.raises(Terminated, match="the same command goes on"):
        run_jobs(jobs, say=said.append, say_error=said.append)
    assert said == ["[bold]first[/]: 1 of 2 left"]
