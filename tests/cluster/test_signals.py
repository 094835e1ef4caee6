"""The first signal is recorded; the second one ends the process, even if it hangs."""

import os
import signal
import subprocess
import sys

import pytest

from cluster.signals import listening

HANG = """
import os, signal, threading
from cluster.signals import listening
with listening() as received:
    os.kill(os.getpid(), signal.SIGINT)
    print(*received, flush=True)
    try:
        while True:
            threading.Event().wait(60)  # stands for a cleanup that hangs
    finally:
        print("cleaned up", flush=True)
"""


def test_the_first_signal_is_recorded_and_the_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with listening() as received:
        os.kill(os.getpid(), signal.SIGTERM)
    assert (received, (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))) == ([signal.SIGTERM], before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_a_process_that_hangs_at_once(number):
    with subprocess.Popen([sys.executable, "-c", HANG], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"{int(signal.SIGINT)}\n"
        process.send_signal(number)
        assert (process.wait(30), process.stdout.read()) == (128 + number, "")
