"""Signals of a scheduler that come more than once."""

import os
import signal
import time

import pytest

from mindseye.commands.visualize import interruptible
from mindseye.visualizer.interruptions import SIGNALS, Interrupted


@pytest.fixture(autouse=True)
def _as_before():
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def told(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def test_a_signal_told_again_does_not_disturb_the_leaving_whoever_put_the_handler_back():
    """Slurm sends some twice, and a fit that ends puts back the handler that was there before its own."""
    with interruptible():
        ours = signal.getsignal(signal.SIGUSR2)
        with pytest.raises(Interrupted) as interrupted:
            told(signal.SIGUSR2)
        assert interrupted.value.signum == signal.SIGUSR2
        told(signal.SIGUSR2)
        signal.signal(signal.SIGUSR2, ours)
        told(signal.SIGUSR2)
        told(signal.SIGTERM)


def test_without_a_signal_the_handlers_come_back():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with interruptible():
        assert signal.getsignal(signal.SIGUSR2) != before[signal.SIGUSR2]
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
