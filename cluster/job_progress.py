"""Progress of a submitted job: lines in its log that ``captioning status`` reads and ``captioning logs`` hides."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

JOB_VARIABLE = "CAPTIONING_JOB"
"""Environment variable with the id of a submitted job; set only inside one."""
_MARK = "captioning-progress "
_WRITE_EVERY_SECONDS = 3.0


class ProgressWriter:
    """Writes progress into the log of a submitted job; does nothing in any other process.

    Args:
        about: values to repeat on every line.
        clock: returns the time in seconds, monotonic.
    """

    def __init__(self, about: Mapping[str, Any], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._about, self._clock = dict(about), clock
        self._is_on = JOB_VARIABLE in os.environ
        self._last_time, self._last_line = float("-inf"), ""

    def write(self, progress: Mapping[str, Any], *, is_last: bool = False) -> None:
        """Write a line of progress.

        Args:
            progress: values by name.
            is_last: whether to write at once; otherwise a line follows the last one by at least 3 s.
        """
        now = self._clock()
        if not self._is_on or not (is_last or now - self._last_time >= _WRITE_EVERY_SECONDS):
            return
        line = json.dumps({**self._about, **progress})
        if line != self._last_line:
            self._last_time, self._last_line = now, line
            sys.stderr.write(f"{_MARK}{line}\n")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return a duration as text, such as 1 h 05 min, 1 min 42 s or 8 s."""
    minutes, rest = divmod(int(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def read_progress(line: str) -> dict[str, Any] | None:
    """Return the progress that a line of a job's log holds; None for any other line."""
    _, mark, text = line.partition(_MARK)
    try:
        found = json.loads(text) if mark else None
    except json.JSONDecodeError:  # two processes wrote to the log at once, so their lines are mixed
        return None
    return found if isinstance(found, dict) else None


def is_progress(line: str) -> bool:
    """Return whether a line of a job's log is progress, which is not shown to people."""
    return line.startswith(_MARK)
