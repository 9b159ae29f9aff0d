"""SIGTERM is not lost, whoever was listening when it came."""

import os
import signal

from metarep_jax.train.signals import catch_termination


def test_what_an_inner_listener_noticed_the_outer_one_and_later_ones_know_and_then_all_is_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with catch_termination() as outer:
        with catch_termination() as inner:
            assert not inner()
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner()
        with catch_termination() as later:
            assert outer() and later()
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_a_signal_nobody_is_told():
    with catch_termination() as outer:
        with catch_termination() as inner:
            pass
        assert not inner() and not outer()
