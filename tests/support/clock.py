"""Time in tests: a clock that a test sets, and a wait for what another thread or process does."""

import time


class Clock:
    """A monotonic clock that stands still until a test sets ``now``, in seconds."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def eventually(condition, *, seconds=20, every_seconds=0.01):
    """Wait until a condition holds.

    Args:
        condition: function that returns whether it holds.
        seconds: longest wait.
        every_seconds: time between two looks.

    Raises:
        AssertionError: it did not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(every_seconds)
