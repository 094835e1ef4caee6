"""Coordinator of a run with one rank, in that rank's own process: a trial of a search with one worker, for instance."""

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from captioning.evaluation.health import Health, changes
from captioning.training.collectives import Flags
from cluster.coordination.hang_timer import HangTimer
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.runs.claim import Claim
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint, load_record, lock_run
from cluster.runs.writer import RunWriter

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5


class LocalCoordinator:
    """Writes the record and journal of a run with one rank, in that rank's own process.

    Args:
        folder: folder of the run; holds its ``run.json``.
        keep_best: number of checkpoints with the best scores to keep.
        keep_last: number of latest checkpoints to keep.
        patience_seconds: time, in seconds, to wait for a process that still holds the run's lock, such as one on a
            lost node.
        claim: claim on the run's checkpoints; None if they are in its folder.
        hang_seconds: time without progress, in seconds, after which this process ends itself; None for never.
        sleep: function that waits for a number of seconds.

    Raises:
        BlockingIOError: another process still holds the run's lock after that time.
        ValueError: the folder holds no ``run.json``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_best: int,
        keep_last: int,
        patience_seconds: float = 60.0,
        claim: Claim | None = None,
        hang_seconds: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder, self.rank = folder, 0
        self.step = 0
        """Number of steps done."""
        self._hang_seconds = hang_seconds
        self._hang_timer: HangTimer | None = None
        lock = _wait_for_lock(folder, patience_seconds, sleep)
        self._writer = RunWriter(folder, lock, keep_best=keep_best, keep_last=keep_last, claim=claim)

    def worker_info(self) -> WorkerInfo:
        """Return the rank, host and process id of this process."""
        return WorkerInfo(self.rank, "", socket.gethostname(), os.getpid(), "")

    def begin_attempt(self, workers: Sequence[WorkerInfo]) -> Attempt:
        """Begin an attempt from the latest committed checkpoint."""
        record = self._writer.begin_attempt()
        before = _stacks_file(self._folder, record.attempt - 1)
        if before.is_file() and before.stat().st_size:
            self.log_event(f"attempt {record.attempt - 1} made no progress and was ended; {before} says where it hung")
        if record.latest:
            self.log_event(f"attempt {record.attempt} resumes at step {record.latest_step}")
        return Attempt.of(record)

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Remove a damaged checkpoint from the record; return the attempt with the checkpoint before it."""
        self._writer.reject(checkpoint)
        self.log_event(f"checkpoint {checkpoint.name} is damaged ({reason}); using the checkpoint before it")
        return Attempt.of(self._writer.record)

    def join_attempt(self, attempt: Attempt) -> None:
        """Set the step that the attempt begins at, and expect progress from now on."""
        self.step = attempt.checkpoint.step if attempt.checkpoint else 0
        if self._hang_seconds is not None:
            self._hang_timer = HangTimer(self._hang_seconds, _stacks_file(self._folder, attempt.number))

    def heartbeat(self, step: int) -> None:
        """Record progress and the number of steps done, which every log line names."""
        self.step = step
        if self._hang_timer:
            self._hang_timer.progress()

    def pause(self) -> None:
        """Expect no progress until the next heartbeat."""
        if self._hang_timer:
            self._hang_timer.pause()

    def requests(self) -> Flags:
        """Return no request: nothing asks this process to stop; its owner ends it directly."""
        return Flags()

    def add_row(self, step: int, metrics: dict[str, float]) -> None:
        """Journal the metrics of a step, unless the journal has that step."""
        self._writer.journal.append(Row(step, int(time.time() * 1000), metrics))

    def commit(self, step: int, metrics: dict[str, float], *, awaits_score: bool = False) -> None:
        """Commit a checkpoint, and all rows before it.

        Raises:
            PermissionError: another process has begun an attempt since.
        """
        # The lock should exclude this, but on shared storage a node that was cut off may lose it without notice.
        found, mine = load_record(self._folder), self._writer.record.attempt
        if found is None or found.attempt != mine:
            raise PermissionError(f"attempt {mine} was replaced; its checkpoint at step {step} is not committed")
        health = self._writer.record.health
        self._writer.commit(step, metrics, awaits_score=awaits_score)
        self._log_health(health)

    def await_score(self, step: int) -> None:
        """Record that a validation task will score the checkpoint of a step."""
        self._writer.await_score(step)

    def add_score(self, step: int, metrics: dict[str, float]) -> None:
        """Attach scores to the checkpoint of an earlier step."""
        health = self._writer.record.health
        self._writer.add_score(step, metrics)
        self._log_health(health)

    def begin_self_critical(self) -> CommittedCheckpoint:
        """Record that self-critical training starts from the best checkpoint, and return that."""
        best = self._writer.begin_self_critical()
        self.log_event(f"self-critical training starts from the checkpoint at step {best.step}")
        return best

    def end_training(self, stopped_early: str = "") -> None:
        """Record that the run is finished; without requests, training ends at the last step or early."""
        if stopped_early:
            self._writer.stop_early(stopped_early)
            self.log_event(f"stopping early: {stopped_early}")
        self._writer.finish()

    def _log_health(self, before: Health) -> None:
        for line in changes(before, self._writer.record.health):
            self.log_event(line)

    def log_event(self, event: str) -> None:
        """Log a line for the user."""
        logger.info("%s", event)

    def close(self) -> None:
        """Write the last rows, and release the run's lock."""
        if self._hang_timer:
            self._hang_timer.close()
        self._writer.journal.flush()
        self._writer.close()


def _stacks_file(folder: Path, attempt: int) -> Path:
    return folder / f"hang-attempt-{attempt}.txt"


def _wait_for_lock(folder: Path, patience_seconds: float, sleep: Callable[[float], None]) -> TextIO:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return lock_run(folder)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            sleep(_RETRY_SECONDS)
