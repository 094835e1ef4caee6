"""Signals to end, heard by a driver that is to leave in good order."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def listening() -> Iterator[list[int]]:
    """Give a list to which SIGINT and SIGTERM are added; the second ends the process at once.

    Elsewhere than in the main thread, none arrive.
    """
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def note(number: int, _: FrameType | None) -> None:
        if told:  # told twice: at once
            os._exit(128 + number)
        told.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
