"""Timer that ends a process which trains by itself and hangs, for no coordinator in another process watches it."""

import faulthandler
import time
from collections.abc import Callable
from pathlib import Path

_RESTART_SECONDS = 1.0  # starting the timer takes 0.1 ms, so not every step does


class HangTimer:
    """Ends this process unless it makes progress, after it has written where each of its threads stands.

    The timer belongs to the process, so only one may run. It needs no Python code, and so also ends a process that
    hangs in a library with the interpreter's lock held.

    Args:
        seconds: time without progress, in seconds, after which the process counts as hung.
        file: file for the threads' stacks, kept only if the process was ended.
        clock: monotonic clock, in seconds.
    """

    def __init__(self, seconds: float, file: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._path, self._clock = seconds, file, clock
        self._file = file.open("w")
        self._started_at: float | None = None
        self.progress()

    def progress(self) -> None:
        """Record that the process makes progress, and start the timer if it is paused."""
        now = self._clock()
        if self._started_at is None or now - self._started_at >= min(_RESTART_SECONDS, self._seconds / 4):
            faulthandler.dump_traceback_later(self._seconds, file=self._file, exit=True)
            self._started_at = now

    def pause(self) -> None:
        """Stop the timer until the next progress, because the process has nothing to do."""
        faulthandler.cancel_dump_traceback_later()
        self._started_at = None

    def close(self) -> None:
        """Stop the timer, and remove its file."""
        self.pause()
        self._file.close()
        self._path.unlink(missing_ok=True)
