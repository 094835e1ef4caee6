"""The line of a rank that trains alone, without a coordinator: what it does counts as soon as it is on disk."""

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from captioning.training.collectives import Flags
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint, load_record, lock_run
from cluster.runs.writer import RunWriter

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 0.5


class LocalCoordinator:
    """Keeps the record and journal of a run with one rank, in that rank's own process.

    Args:
        folder: of the run; holds its ``run.json``.
        keep_best: checkpoints of the best score to keep.
        keep_last: latest checkpoints to keep.
        patience_seconds: that a process which still has the run is waited for, such as one on a node that was lost.
        sleep: waits that many seconds.

    Raises:
        BlockingIOError: another process goes on holding the run.
        ValueError: the folder holds no record.
    """

    rank = 0

    def __init__(
        self,
        folder: Path,
        *,
        keep_best: int,
        keep_last: int,
        patience_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder, self.step = folder, 0
        lock = _hold(folder, patience_seconds, sleep)
        self._writer = RunWriter(folder, lock, keep_best=keep_best, keep_last=keep_last)

    def place(self) -> WorkerInfo:
        """Return where this process runs."""
        return WorkerInfo(self.rank, "", socket.gethostname(), os.getpid(), "")

    def begin(self, places: Sequence[WorkerInfo]) -> Attempt:
        """Begin an attempt, from the latest checkpoint that counts."""
        record = self._writer.begin_attempt()
        if record.latest:
            self.tell(f"attempt {record.attempt} resumes at step {record.latest_step}")
        return Attempt(record.attempt, record.latest)

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Take a damaged checkpoint out of the record; return the attempt from the one before it."""
        self._writer.reject(checkpoint)
        self.tell(f"checkpoint {checkpoint.name} is damaged ({reason}); the one before it is used")
        return Attempt(attempt, self._writer.record.latest)

    def start(self, attempt: int) -> None:
        """Do nothing: nobody waits for signs of life."""

    def get_on(self) -> None:
        """Do nothing, likewise."""

    def wishes(self) -> Flags:
        """Return no wish: who wants this process to end, ends it."""
        return Flags()

    def add_row(self, step: int, metrics: dict[str, float]) -> None:
        """Journal a step's metrics, unless the step is known."""
        self._writer.journal.append(Row(step, int(time.time() * 1000), metrics))

    def commit(self, step: int, metrics: dict[str, float], *, awaits_score: bool = False) -> None:
        """Make a checkpoint count, and all rows before it.

        Raises:
            PermissionError: another process has begun an attempt since.
        """
        found, mine = load_record(self._folder), self._writer.record.attempt
        if found is None or found.attempt != mine:
            raise PermissionError(f"attempt {mine} was replaced; its checkpoint at step {step} does not count")
        self._writer.commit(step, metrics, awaits_score=awaits_score)

    def add_score(self, step: int, metrics: dict[str, float]) -> None:
        """Attach a score to the checkpoint of a step that has passed."""
        self._writer.add_score(step, metrics)

    def await_score(self, step: int) -> None:
        """Do nothing: nobody scores beside a single rank."""

    def note_stopped(self) -> None:
        """Do nothing: what follows the loop's end says more."""

    def leave(self, ending: object) -> None:
        """Do nothing: a single rank is taken away like any other process."""

    def tell(self, event: str) -> None:
        """Log an event."""
        logger.info("%s", event)

    def finish(self) -> None:
        """Note that the run has come to its end."""
        self._writer.finish()

    def end(self) -> None:
        """Write the last rows, and leave the run to others."""
        self._writer.journal.flush()
        self._writer.close()


def _hold(folder: Path, patience_seconds: float, sleep: Callable[[float], None]) -> TextIO:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return lock_run(folder)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            sleep(_LOOK_EVERY_SECONDS)
