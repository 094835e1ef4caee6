"""Journal of a run: step metrics on disk, in immutable segments, which survive crashes and an unreachable tracker.

A segment is a file of JSON lines, written atomically. Steps only increase: the rows that a restarted run computes again
are in the journal already and are dropped. Scores that arrive after their step (late rows) go to separate segments.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from shards.storage.files import remove_torn, replace_file

_SHIPPED_NAME = "shipped.json"
_LATE = ".late"  # mark in the file name of a segment of late rows


class Row(NamedTuple):
    """Metrics of one step.

    Attributes:
        step: number of steps done.
        timestamp_ms: time at which the row was journalled, in milliseconds since 1970; sent to MLflow unchanged, also
            when the row is sent again.
        metrics: values by name.
    """

    step: int
    timestamp_ms: int
    metrics: Mapping[str, float]


class DamagedSegmentError(ValueError):
    """A segment with other content than was written: segments are written atomically, so the disk damaged it."""


class Journal:
    """The rows of a run; only one process at a time may write, from any of its threads.

    Args:
        folder: folder of the segments; created if absent.

    Raises:
        DamagedSegmentError: the last segment is damaged.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_torn(folder, "*.jsonl")
        self.folder = folder
        self._pending: list[Row] = []
        self._pending_late: list[Row] = []
        self._writing = threading.Lock()
        segments = list_segments(folder)
        self._next_segment = _number(segments[-1]) + 1 if segments else 1
        on_time = [path for path in segments if not _is_late(path)]
        self.last_step = read_segment(on_time[-1])[-1].step if on_time else -1
        self._scored = {_score_key(row) for path in segments if _is_late(path) for row in read_segment(path)}

    def append(self, row: Row) -> bool:
        """Add a row, unless its step is at or below the last one; return whether it was added."""
        with self._writing:
            if row.step <= self.last_step:
                return False
            self._pending.append(row)
            self.last_step = row.step
            return True

    def append_late(self, row: Row) -> bool:
        """Add a score of an earlier step, unless it is known; return whether it was added."""
        with self._writing:
            if _score_key(row) in self._scored:
                return False
            self._pending_late.append(row)
            self._scored.add(_score_key(row))
            return True

    def flush(self) -> None:
        """Write the rows added since the last flush to disk, as segments."""
        with self._writing:
            self._write(self._pending, "")
            self._pending = []
            self._write(self._pending_late, _LATE)
            self._pending_late = []

    def _write(self, rows: list[Row], mark: str) -> None:
        if not rows:
            return
        lines = "".join(json.dumps(row._asdict()) + "\n" for row in rows)
        replace_file(self.folder / f"{self._next_segment:06d}{mark}.jsonl", lines.encode())
        self._next_segment += 1


def list_segments(folder: Path) -> list[Path]:
    """Return the files of a journal's segments, in the order in which they were written."""
    return sorted(folder.glob("[0-9]*.jsonl"))


def unshipped(folder: Path) -> Iterator[tuple[int, list[Row]]]:
    """Yield (number, rows) of each segment that is not marked as shipped to the tracker, in order."""
    path = folder / _SHIPPED_NAME
    done = json.loads(path.read_bytes())["segment"] if path.is_file() else 0
    for segment in list_segments(folder):
        if _number(segment) > done:
            yield _number(segment), read_segment(segment)


def mark_shipped(folder: Path, segment: int) -> None:
    """Record that the tracker has all segments up to this one."""
    replace_file(folder / _SHIPPED_NAME, json.dumps({"segment": segment}).encode())


def read_segment(path: Path) -> list[Row]:
    """Return the rows of a segment, at least one.

    Raises:
        DamagedSegmentError: the file is empty, or one of its lines is not a row.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            rows.append(Row(**json.loads(line)))
        except (ValueError, TypeError):
            raise DamagedSegmentError(
                f"{path} is damaged: line {number} is not a row; restore the file from a copy, or move it away"
            ) from None
    if not rows:
        raise DamagedSegmentError(f"{path} is damaged: it is empty; restore the file from a copy, or move it away")
    return rows


def _number(segment: Path) -> int:
    return int(segment.name.partition(".")[0])


def _is_late(segment: Path) -> bool:
    return segment.stem.endswith(_LATE)


def _score_key(row: Row) -> tuple[int, tuple[str, ...]]:
    """Return what identifies a late row: its step and the names of its metrics."""
    return row.step, tuple(sorted(row.metrics))
