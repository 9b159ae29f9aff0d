"""Progress in a terminal and in a log."""

import io
import logging

import pytest
import rich
from rich.console import Console

from metarep_jax.train import display, track


@pytest.fixture
def terminal(monkeypatch):
    """What is shown in a terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(rich, "_console", console)
    return console.file


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), track("evaluate", 600, unit="episodes") as advance:
        for done in (1, 150, 160, 600):
            now[0] = 100.0 + done / 5
            advance(done, "accuracy 91")
    assert [record.message for record in caplog.records] == [
        "evaluate: episode 150 of 600, 5 episodes/s, 1.5 min left; accuracy 91",
        "evaluate: episode 600 of 600, 5 episodes/s; accuracy 91",
    ]


def test_work_inside_other_work_adds_a_bar_of_its_own_and_takes_it_away(terminal):
    with track("train", 10) as outer:
        outer(3, "loss 2")
        with track("validate", 5) as inner:
            inner(4, "accuracy 9")
            assert len(display._bars[0].tasks) == 2
        assert [task.description for task in display._bars[0].tasks] == ["train"]
        outer(10)
    assert not display._bars
    assert "train" in terminal.getvalue() and "10/10" in terminal.getvalue()


def test_nothing_is_shown_where_nothing_is_asked_for(terminal, caplog):
    with caplog.at_level(logging.INFO), track("read", 2, visible=False) as advance:
        advance(2, "done")
    assert not terminal.getvalue() and not caplog.records
