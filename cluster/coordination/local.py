"""Coordinator of a rank that trains alone, in its own process: what the rank does counts as soon as it is on disk."""

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

_RETRY_SECONDS = 0.5


class LocalCoordinator:
    """Keeps the record and journal of a run with one rank, in that rank's own process.

    Args:
        folder: folder of the run; holds its ``run.json``.
        keep_best: number of checkpoints of the best score to keep.
        keep_last: number of latest checkpoints to keep.
        patience_seconds: time to wait for a process that still has the run, such as one on a node that was lost.
        sleep: waits that many seconds.

    Raises:
        BlockingIOError: another process goes on holding the run.
        ValueError: the folder holds no record.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_best: int,
        keep_last: int,
        patience_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder, self.rank = folder, 0
        self.step = 0
        """Number of steps done."""
        lock = _wait_for_lock(folder, patience_seconds, sleep)
        self._writer = RunWriter(folder, lock, keep_best=keep_best, keep_last=keep_last)

    def worker_info(self) -> WorkerInfo:
        """Return where this process runs."""
        return WorkerInfo(self.rank, "", socket.gethostname(), os.getpid(), "")

    def begin_attempt(self, workers: Sequence[WorkerInfo]) -> Attempt:
        """Begin an attempt, from the latest checkpoint that counts."""
        record = self._writer.begin_attempt()
        if record.latest:
            self.log_event(f"attempt {record.attempt} resumes at step {record.latest_step}")
        return Attempt(record.attempt, record.latest)

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Take a damaged checkpoint out of the record; return the same attempt from the one before it."""
        self._writer.reject(checkpoint)
        self.log_event(f"checkpoint {checkpoint.name} is damaged ({reason}); the one before it is used")
        return Attempt(attempt, self._writer.record.latest)

    def join_attempt(self, attempt: Attempt) -> None:
        """Note where the attempt begins."""
        self.step = attempt.checkpoint.step if attempt.checkpoint else 0

    def heartbeat(self, step: int) -> None:
        """Note the number of steps done, which the log names."""
        self.step = step

    def requests(self) -> Flags:
        """Return no request: who wants this process to end, ends it."""
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

    def await_score(self, step: int) -> None:
        """Note that a task is going to score the checkpoint of a step."""
        self._writer.await_score(step)

    def add_score(self, step: int, metrics: dict[str, float]) -> None:
        """Attach scores to the checkpoint of a step that has passed."""
        self._writer.add_score(step, metrics)

    def end_training(self) -> None:
        """Note that the run is finished; this process is never requested to stop before."""
        self._writer.finish()

    def log_event(self, event: str) -> None:
        """Log an event for people."""
        logger.info("%s", event)

    def close(self) -> None:
        """Write the last rows, and release the run's lock."""
        self._writer.journal.flush()
        self._writer.close()


def _wait_for_lock(folder: Path, patience_seconds: float, sleep: Callable[[float], None]) -> TextIO:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return lock_run(folder)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            sleep(_RETRY_SECONDS)
