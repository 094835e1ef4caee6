"""The one process that decides what of a training run counts: which checkpoints, which rows, which attempt.

A named actor on the driver's node that reserves no CPU and ends with the driver. Ranks send it heartbeats, rows and
checkpoints; it keeps the journal and ``run.json``, and replies with its requests. A worker that was cut off and
replaced still knows its old attempt's number, by which it is refused.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import ray

from cluster.coordination.attempt import CurrentAttempt
from cluster.coordination.messages import (
    Attempt,
    CoordinatorSettings,
    HeartbeatReply,
    Request,
    RunProgress,
    TrainEvent,
    WorkerInfo,
)
from cluster.coordination.restart_policy import Failure
from cluster.coordination.watchdog import end_with, kill_ranks
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint, lock_run
from cluster.runs.writer import RunWriter

logger = logging.getLogger(__name__)


class Coordinator:
    """Serves ranks, Train's controller, tasks that score, and the driver, in this order; Ray makes one call at a time.

    Args:
        folder: folder of the run; holds its ``run.json``.
        settings: settings of the run.
        kill: kills the processes of workers of which one hangs.
        end_controller: ends Train's controller, given its handle, when a group does not start.

    Raises:
        BlockingIOError: another live driver has the run.
        ValueError: the folder holds no record.
    """

    def __init__(
        self,
        folder: Path,
        settings: CoordinatorSettings,
        *,
        kill: Callable[[Sequence[WorkerInfo]], None] = kill_ranks,
        end_controller: Callable[[Any], None] = ray.kill,
    ) -> None:
        # Every process that gets this actor's handle imports this module, and MLflow takes it a second.
        from cluster.tracking.shipping import Shipper

        self._writer = RunWriter(folder, lock_run(folder), keep_best=settings.keep_best, keep_last=settings.keep_last)
        self._events: list[str] = []
        self._shipper = Shipper(self._writer.journal, self._writer.record, settings.tracking_uri)
        self._current = CurrentAttempt(settings, log_event=self.log_event, kill=kill, end_controller=end_controller)
        self._row: Row | None = None
        self._num_steps_redone = 0
        self._reply = HeartbeatReply("none", 0)
        self._is_stopped = self._is_over = False
        end_with(settings.driver_pid, before=self._writer.journal.flush)

    def begin_attempt(self, workers: Sequence[WorkerInfo] = ()) -> Attempt:
        """Begin a new attempt, from the latest checkpoint that counts; earlier attempts are refused from now on.

        Raises:
            PermissionError: there is to be no further attempt.
        """
        if self._current.final_failure or self._is_over:
            raise PermissionError("the run is over; there is no further attempt")
        record = self._writer.begin_attempt()
        self._current.begin(record.latest_step, workers)
        self._reply = self._reply.after_checkpoint()
        if record.latest or record.attempt > 1:
            group = f" with {len(workers)} workers" if workers else ""
            self.log_event(f"attempt {record.attempt} resumes at step {record.latest_step}{group}")
        return Attempt(record.attempt, record.latest)

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Take a damaged checkpoint out of the record; return the same attempt from the one before it.

        Raises:
            FileNotFoundError: it is whole, or there is none before it.
        """
        self._require_current(attempt)
        self._writer.reject(checkpoint)
        self._current.step = step = self._writer.record.latest_step
        self.log_event(f"checkpoint {checkpoint.name} is damaged ({reason}); the one of step {step} is used")
        return Attempt(attempt, self._writer.record.latest)

    def heartbeat(self, attempt: int, rank: int, progress: int, rows: Sequence[Row] = ()) -> HeartbeatReply:
        """Take a rank's heartbeat with the rows of its steps since the last call; reply with a request.

        ``progress`` grows as long as the rank makes progress.
        """
        if not self._is_current(attempt):
            return HeartbeatReply("exit", 0)
        self._current.heartbeat(rank, progress)
        self._add_rows(rows)
        return self._reply

    def commit(
        self,
        attempt: int,
        step: int,
        metrics: Mapping[str, float],
        rows: Sequence[Row] = (),
        *,
        awaits_score: bool = False,
    ) -> None:
        """Make a checkpoint count that is completely written, with the rows of the steps since the last call.

        ``metrics`` are the scores that are known; what ``awaits_score`` is scored by a task later.

        Raises:
            PermissionError: the attempt is no longer the current one.
        """
        self._require_current(attempt)
        self._add_rows(rows)
        self._writer.commit(step, metrics, awaits_score=awaits_score)
        self._current.note_checkpoint()
        self.log_event(f"checkpoint at step {step}{': ' if metrics else ''}{_shown(metrics)}")
        self._reply = self._reply.after_checkpoint()

    def report_failure(self, attempt: int | None, failure: Failure) -> None:
        """Note how a rank failed, which may not yet have known its attempt; if all fail alike, there is no further."""
        if attempt in (None, self._writer.record.attempt):
            self._current.fail(failure)

    def report_preemption(self, attempt: int) -> None:
        """Note that an attempt ends because a node is about to be taken away."""
        if self._is_current(attempt):
            self._current.set_ending("preemption")
            self.log_event(f"attempt {attempt} ends: a node is about to be taken away")

    def end_training(self, attempt: int) -> None:
        """Note that the ranks have stopped, and their last checkpoint counts; from now on none of them can hang."""
        if self._is_current(attempt):
            self._is_stopped = True
            self._current.note_stopped()

    def log_event(self, event: str) -> None:
        """Log an event for people."""
        logger.info("%s", event)
        self._events.append(event)

    def notify(self, event: TrainEvent) -> None:
        """Take what Ray Train says of its controller and its workers."""
        self._current.notify(event)

    def request_resize(self, num_workers: int) -> int | None:
        """Request a checkpoint before the group is resized; return the latest one's step, None if no group trains."""
        if not self._current.is_training:
            return None
        self.log_event(f"the group gets another size: {num_workers} workers")
        self._current.set_ending("resize")
        self.request("checkpoint")
        return self._writer.record.latest_step

    def may_resize(self, before: int) -> bool:
        """Return whether a later checkpoint counts than that of step ``before``, or no group trains any more."""
        return self._writer.record.latest_step > before or not self._current.may_save()

    def newest_unscored(self, step: int) -> CommittedCheckpoint | None:
        """Return the checkpoint of a step and keep it until it is scored; None if a newer one waits for its score."""
        return self._writer.newest_unscored(step)

    def await_score(self, step: int) -> None:
        """Note that a task is going to score the checkpoint of a step."""
        self._writer.await_score(step)

    def add_score(self, step: int, metrics: Mapping[str, float]) -> None:
        """Attach a score that became known after its step had passed to the checkpoint of that step."""
        self._writer.add_score(step, metrics)
        self.log_event(f"score of step {step}: {_shown(metrics)}")

    def give_up_score(self, step: int, reason: str) -> None:
        """Note that a checkpoint cannot be scored."""
        self._writer.give_up_score(step)
        self.log_event(f"the checkpoint of step {step} has no score: {reason}")

    def request(self, request: Request) -> None:
        """Request something of all ranks: a checkpoint, or to stop after one."""
        self._reply = self._reply.with_request(request)

    def controller(self) -> Any:  # noqa: ANN401  Ray's handles have no type
        """Return the controller of the Train run, once it is known."""
        return self._current.controller

    def progress(self, num_events_known: int = 0) -> RunProgress:
        """Return how far the run is, with the events after those that are known."""
        events = self._events.copy()  # to which the watchdog's thread may add
        return RunProgress(
            attempt=self._writer.record.attempt,
            row=self._row,
            events=events[num_events_known if num_events_known <= len(events) else 0 :],
            num_events=len(events),
            num_steps_redone=self._num_steps_redone,
            final_failure=self._current.final_failure,
            is_stopped=self._is_stopped,
            latest=self._writer.record.latest,
            workers=self._current.workers,
        )

    def finish(self, status: str) -> bool:
        """End the run: FINISHED, FAILED or KILLED; return whether the tracker has everything."""
        self._is_over = True
        self._current.close()
        if status == "FINISHED":
            self._writer.finish()
        with closing(self._writer):
            return self._shipper.finish(status)

    def _is_current(self, attempt: int) -> bool:
        return self._current.is_training and attempt == self._writer.record.attempt

    def _require_current(self, attempt: int) -> None:
        now = self._writer.record.attempt
        if not self._is_current(attempt):
            raise PermissionError(f"attempt {attempt} was replaced by {now}; its checkpoint does not count")

    def _add_rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._num_steps_redone += not self._writer.journal.append(row)
            self._row = row
            self._current.step = row.step


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())
