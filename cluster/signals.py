"""SIGINT and SIGTERM, recorded instead of raised, so that a driver can shut down cleanly."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def listening() -> Iterator[list[int]]:
    """Record SIGINT and SIGTERM in the yielded list during the block; the second signal ends the process at once.

    Python delivers signals to the main thread only: in any other thread, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, _: FrameType | None) -> None:
        if received:  # without any cleanup: the cleanup may be what hangs
            os._exit(128 + number)
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
