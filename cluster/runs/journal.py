"""Journal of a run: step metrics on disk, in immutable segments, which survive crashes and an unreachable tracker.

A segment is a file of JSON lines, written atomically. Steps only increase: the rows that a restarted run computes again
are in the journal already and are dropped. Scores that arrive after their step (late rows) go to separate segments.

A segment's name is its number and the attempt that wrote it, such as ``000012.3.jsonl`` (without the attempt in
releases before 0.3). A process that was cut off from the others may go on writing: its segments have names of their
own, and are not read from the first segment of a later attempt on.
"""

import json
import os
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from shards.storage.files import create_file, remove_torn, replace_file

_SHIPPED_NAME = "shipped.json"
_LATE = ".late"  # mark in the file name of a segment of late rows
_SEGMENT_NAME = re.compile(r"\d+(\.\d+)?(\.late)?\.jsonl")


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
        attempt: number of the run's attempt that writes.

    Raises:
        DamagedSegmentError: the last segment is damaged.
    """

    def __init__(self, folder: Path, *, attempt: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_torn(folder, "*.jsonl")
        self.folder = folder
        self.attempt = attempt
        self._pending: list[Row] = []
        self._pending_late: list[Row] = []
        self._writing = threading.Lock()
        segments = list_segments(folder)
        number, self._latest_attempt = _place(segments[-1].name) if segments else (0, 0)
        self._next_segment = number + 1
        self._unshipped = deque(_after_shipped(folder, segments))
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

    def unshipped(self) -> Iterator[tuple[Path, list[Row]]]:
        """Yield the segments that the tracker lacks, as the function ``unshipped``, without listing the folder.

        A segment counts as shipped when the next one is asked for.
        """
        while self._unshipped:
            yield self._unshipped[0], read_segment(self._unshipped[0])
            self._unshipped.popleft()

    def _write(self, rows: list[Row], mark: str) -> None:
        if not rows:
            return
        lines = "".join(json.dumps(row._asdict()) + "\n" for row in rows)
        attempt = max(self.attempt, self._latest_attempt)  # also if the run's record was restored from an old copy
        segment = self.folder / f"{self._next_segment:06d}.{attempt}{mark}.jsonl"
        try:
            create_file(segment, lines.encode())
        except FileExistsError:
            raise FileExistsError(f"{segment} was written by another process; end the run's other driver") from None
        self._unshipped.append(segment)
        self._next_segment += 1


def list_segments(folder: Path) -> list[Path]:
    """Return the files of a journal's segments, in order, without those of processes that were cut off."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _SEGMENT_NAME.fullmatch(entry.name)]
    segments, latest = [], 0
    for _, later_first, name in sorted((_place(name)[0], -_place(name)[1], name) for name in names):
        if -later_first >= latest:
            segments.append(folder / name)
            latest = -later_first
    return segments


def unshipped(folder: Path) -> Iterator[tuple[Path, list[Row]]]:
    """Yield the file and the rows of each segment that is not marked as shipped to the tracker, in order."""
    for segment in _after_shipped(folder, list_segments(folder)):
        yield segment, read_segment(segment)


def mark_shipped(segment: Path) -> None:
    """Record that the tracker has all segments of the journal up to this one."""
    number, attempt = _place(segment.name)
    content = json.dumps({"segment": number, "attempt": attempt})
    replace_file(segment.with_name(_SHIPPED_NAME), content.encode())


def _after_shipped(folder: Path, segments: list[Path]) -> list[Path]:
    path = folder / _SHIPPED_NAME
    mark = json.loads(path.read_bytes()) if path.is_file() else {"segment": 0}
    done = (mark["segment"], mark.get("attempt", 0))
    return [segment for segment in segments if _place(segment.name) > done]


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


def _place(name: str) -> tuple[int, int]:
    """Return the number and the attempt in a segment's file name; an earlier release wrote no attempt, which is 0."""
    number, attempt = name.split(".")[:2]
    return int(number), int(attempt) if attempt.isdigit() else 0


def _is_late(segment: Path) -> bool:
    return segment.stem.endswith(_LATE)


def _score_key(row: Row) -> tuple[int, tuple[str, ...]]:
    """Return what identifies a late row: its step and the names of its metrics."""
    return row.step, tuple(sorted(row.metrics))
