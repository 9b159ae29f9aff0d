"""SIGTERM and Ctrl-C are not lost, whoever was listening when they came."""

import os
import signal
import subprocess
import sys

import pytest

from metarep_jax.train import Terminated
from metarep_jax.train.signals import catch_termination, shield_children


@pytest.fixture(autouse=True)
def interrupts():
    """Ctrl-C as in a terminal: a shell starts its background jobs with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_an_inner_listener_noticed_the_outer_one_and_later_ones_know_and_then_all_is_as_before(number):
    before = signal.getsignal(number)
    with catch_termination() as outer:
        with catch_termination() as inner:
            assert not inner()
            os.kill(os.getpid(), number)
            assert inner() == number
        with catch_termination() as later:
            assert outer() == later() == number
    assert signal.getsignal(number) == before


def test_without_a_signal_nobody_is_told():
    with catch_termination() as outer:
        with catch_termination() as inner:
            pass
        assert not inner() and not outer()


def test_a_second_ctrl_c_acts_at_once():
    def twice():
        with catch_termination() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert asked()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()


def test_processes_that_are_started_under_a_shield_are_not_interrupted():
    """As those of a reader, to which a terminal sends Ctrl-C too."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"

    def run():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    with shield_children():
        assert run().stdout == "alive\n"
    assert "KeyboardInterrupt" in run().stderr


def test_the_exit_status_says_which_signal_came():
    assert Terminated("saved").code == 143
    assert Terminated("saved", signal.SIGINT).code == 130
