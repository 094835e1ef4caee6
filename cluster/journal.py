"""Step metrics on disk, in immutable segments, so that they outlive any crash and any tracker.

A segment is a file of JSON lines, whole or absent. The step of a row never falls: what a restarted run computes again
is already there and is dropped.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from shards.files import replace_file

_SHIPPED_NAME = "shipped.json"


class Row(NamedTuple):
    """Metrics of one step.

    Attributes:
        step: number of steps done.
        timestamp_ms: when it was journalled, milliseconds since 1970; kept when it is sent again.
        metrics: by name.
    """

    step: int
    timestamp_ms: int
    metrics: Mapping[str, float]


class Journal:
    """The rows of a run; one process at a time may write, from several threads.

    Args:
        folder: of the segments; created if absent.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._pending: list[Row] = []
        self._writing = threading.Lock()
        segments = self._segments()
        self._next_segment = int(segments[-1].stem) + 1 if segments else 1
        last = list(_read(segments[-1])) if segments else []
        self.last_step = last[-1].step if last else -1

    def append(self, row: Row) -> bool:
        """Take a row, unless its step is at or below the last one; return whether it was taken."""
        with self._writing:
            if row.step <= self.last_step:
                return False
            self._pending.append(row)
            self.last_step = row.step
            return True

    def flush(self) -> None:
        """Write the rows taken since the last flush as one segment."""
        with self._writing:
            if not self._pending:
                return
            lines = "".join(json.dumps(row._asdict()) + "\n" for row in self._pending)
            replace_file(self._folder / f"{self._next_segment:06d}.jsonl", lines.encode())
            self._next_segment += 1
            self._pending = []

    def unshipped(self) -> Iterator[tuple[int, list[Row]]]:
        """Yield (number, rows) of the segments that were not marked as shipped, in order."""
        done = self._shipped()
        for path in self._segments():
            if int(path.stem) > done:
                yield int(path.stem), list(_read(path))

    def mark_shipped(self, segment: int) -> None:
        """Note that all segments up to this one have reached the tracker."""
        replace_file(self._folder / _SHIPPED_NAME, json.dumps({"segment": segment}).encode())

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.jsonl"))

    def _shipped(self) -> int:
        path = self._folder / _SHIPPED_NAME
        return json.loads(path.read_bytes())["segment"] if path.is_file() else 0


def _read(path: Path) -> Iterator[Row]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield Row(**json.loads(line))
