"""How long devices wait for batches: a share of the time, measured by when each is ready, and said in words."""

import logging
import time

import pytest

from metarep_jax.train.waiting import WaitingTime

SECOND = 0.04  # of these tests


class Outputs:
    """Outputs of a dispatch that takes so long."""

    def __init__(self, seconds):
        self.until = time.perf_counter() + seconds * SECOND

    def block_until_ready(self):
        time.sleep(max(0.0, self.until - time.perf_counter()))


class Reader:
    """Of which only the advice is read."""

    advice = "give --data.workers 7"
    __next__ = __iter__ = get_state = set_state = lambda self, *unused: None


def measured(waiting, device, reading, dispatches=3):
    """Dispatches of ``device`` seconds, beside batches that take ``reading`` seconds."""
    for _ in range(dispatches):
        began = time.perf_counter()
        with waiting.measure(began, Outputs(device)):
            time.sleep(reading * SECOND)


@pytest.mark.parametrize(
    ("device", "reading", "low", "high"), [(4, 0, 0, 0.1), (0, 4, 0.9, 1), (2, 4, 0.3, 0.7), (4, 2, 0, 0.1)]
)
def test_devices_wait_for_the_part_of_the_reading_that_outlasts_their_work(device, reading, low, high):
    waiting = WaitingTime(Reader())
    measured(waiting, device, reading)
    share = waiting.end_line()["waiting_share"]
    assert 0 <= low <= share <= high <= 1
    assert waiting.in_words() == f"waits for data {share:.0%}"
    assert waiting.end_line() == {}  # nothing since
    waiting.close()


def test_the_first_dispatch_compiles_and_does_not_count():
    waiting = WaitingTime(Reader())
    measured(waiting, 0, 5, dispatches=1)
    assert waiting.end_line() == {} and waiting.in_words() == ""
    measured(waiting, 5, 0, dispatches=1)
    assert waiting.end_line()["waiting_share"] < 0.1


def test_much_waiting_is_said_once_while_it_lasts_with_what_to_do(caplog):
    waiting = WaitingTime(Reader(), "pretrain")
    measured(waiting, 4, 0, dispatches=2)
    with caplog.at_level(logging.WARNING):
        waiting.end_line()
        assert not caplog.records
        for _ in range(2):
            measured(waiting, 0, 4, dispatches=1)
            waiting.end_line()
    [record] = caplog.records
    assert record.message.startswith("pretrain: the devices wait for data ")
    assert record.message.endswith("% of the time; give --data.workers 7")


def test_without_a_reader_nothing_is_measured():
    waiting = WaitingTime(None)
    measured(waiting, 0, 1, dispatches=2)
    assert waiting.end_line() == {} and waiting.in_words() == ""


def test_an_error_while_reading_is_raised():
    waiting = WaitingTime(Reader())
    measured(waiting, 0, 0, dispatches=1)
    with pytest.raises(OSError, match="cut"), waiting.measure(time.perf_counter(), Outputs(0)):
        raise OSError("cut")
