"""Coordinator of a training run: the one process that accepts attempts, metric rows and checkpoints.

The coordinator is a named actor on the driver's node. It reserves no CPU and ends with the driver. Ranks send it
heartbeats, rows and checkpoint commits; it writes the journal and ``run.json``, and replies with requests. With rows
and commits, ranks send the number of their attempt, so a worker that was cut off and replaced is refused.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.coordination.attempt import CurrentAttempt
from cluster.coordination.hang_detection import end_with, kill_ranks
from cluster.coordination.messages import (
    Attempt,
    CoordinatorSettings,
    HeartbeatReply,
    Request,
    RunProgress,
    TrainEvent,
    WorkerInfo,
    workers_text,
)
from cluster.coordination.restart_policy import Failure
from cluster.coordination.run_state import RunState
from cluster.log_text import clean_logs
from cluster.runs.journal import Row
from cluster.runs.record import CommittedCheckpoint


class Coordinator:
    """Actor that the ranks, Ray Train's controller, validation tasks and the driver call; Ray runs one call at a time.

    Args:
        folder: folder of the run; holds its ``run.json``.
        settings: settings of the coordinator.
        kill: function that kills the processes of the given workers, called when one of them hangs.
        end_controller: function that ends Ray Train's controller, given its handle, when a group does not start.
        clock: monotonic clock, in seconds.
        environment: variables to set in this process. As a runtime environment of the actor, they would cost another
            start of Python.

    Raises:
        BlockingIOError: another live driver holds the run's lock.
        ValueError: the folder holds no ``run.json``.
    """

    def __init__(
        self,
        folder: Path,
        settings: CoordinatorSettings,
        *,
        kill: Callable[[Sequence[WorkerInfo]], None] = kill_ranks,
        end_controller: Callable[[Any], None] = ray.kill,
        clock: Callable[[], float] = time.monotonic,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        clean_logs()
        os.environ.update(environment or {})
        self._state = RunState(folder, settings, clock)
        self._current = CurrentAttempt(settings, log_event=self.log_event, kill=kill, end_controller=end_controller)
        self._reply, self._is_stopped, self._is_over = HeartbeatReply("none", 0), False, False
        end_with(settings.driver_pid, before=self._state.writer.journal.flush)

    def begin_attempt(self, workers: Sequence[WorkerInfo] = ()) -> Attempt:
        """Begin a new attempt from the latest committed checkpoint; calls of earlier attempts are refused from now on.

        Raises:
            PermissionError: the run is over.
        """
        if self._current.final_failure or self._is_over:
            raise PermissionError("the run is over; there is no further attempt")
        record = self._state.begin_attempt(len(workers))
        self._current.begin(record.latest_step, workers)
        self._reply = self._reply.after_checkpoint()
        return Attempt.of(record)

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Remove a damaged checkpoint from the record; return the attempt with the checkpoint before it.

        Raises:
            FileNotFoundError: the checkpoint is intact on this node, or no other checkpoint is left.
            PermissionError: the attempt is no longer the current one.
        """
        self._require_current(attempt)
        self._current.step = self._state.reject(checkpoint, reason).latest_step
        return Attempt.of(self._state.record)

    def heartbeat(self, attempt: int, rank: int, progress: int, rows: Sequence[Row] = ()) -> HeartbeatReply:
        """Record a rank's heartbeat and the rows of its steps since its last call; reply with a request.

        ``progress`` is a counter that grows while the rank makes progress.
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
        """Commit a checkpoint after all of its files are written.

        Args:
            attempt: number of the attempt that wrote it.
            step: number of steps done in the checkpoint.
            metrics: known scores of the checkpoint, by name.
            rows: metrics of the rank's steps since its last call.
            awaits_score: whether a validation task will score the checkpoint later.

        Raises:
            PermissionError: the attempt is no longer the current one.
        """
        self._require_current(attempt)
        self._add_rows(rows)
        self._state.commit(step, metrics, awaits_score=awaits_score, is_requested=self._reply.request != "none")
        self._current.note_checkpoint()
        self._reply = self._reply.after_checkpoint()

    def report_failure(self, attempt: int | None, failure: Failure) -> None:
        """Record how a rank failed; a failure that all ranks agree on ends the run."""
        if attempt in (None, self._state.record.attempt):  # None: the rank failed before it joined an attempt
            self._current.fail(failure)

    def report_preemption(self, attempt: int) -> None:
        """Record that an attempt ends because a node is about to be preempted."""
        if self._is_current(attempt):
            self._current.set_ending("preemption")
            self.log_event(f"attempt {attempt} ends: a node is about to be preempted")

    def begin_self_critical(self, attempt: int, rows: Sequence[Row] = ()) -> CommittedCheckpoint:
        """Record that self-critical training starts from the best checkpoint, and return that.

        Raises:
            PermissionError: the attempt is no longer the current one.
        """
        self._require_current(attempt)
        self._add_rows(rows)
        return self._state.begin_self_critical()

    def end_training(self, attempt: int, stopped_early: str = "") -> None:
        """Record that the ranks have stopped and their last checkpoint is committed; stop watching them for hangs.

        Args:
            attempt: number of the attempt that ends.
            stopped_early: why the ranks stop before the last step; empty if they do not, or were requested to stop.
        """
        if self._is_current(attempt):
            if stopped_early:
                self._state.stop_early(stopped_early)
            self._is_stopped = True
            self._state.events.log_last_checkpoint()
            self._current.note_stopped()

    def log_event(self, event: str) -> None:
        """Log a line for the user, which the driver shows."""
        self._state.events.log(event)

    def notify(self, event: TrainEvent) -> None:
        """Handle an event of Ray Train's controller or workers."""
        self._current.notify(event)

    def request_resize(self, num_workers: int) -> int | None:
        """Request a checkpoint before a resize; return the latest step for ``may_resize``, None if no group trains."""
        if not self._current.is_training:
            return None
        self.log_event(f"resizing the group to {workers_text(num_workers)}")
        self._current.set_ending("resize")
        self.request("checkpoint")
        return self._state.record.latest_step

    def may_resize(self, before: int) -> bool:
        """Return whether a checkpoint later than step ``before`` is committed, or none can come any more."""
        return self._state.record.latest_step > before or not self._current.may_save()

    def newest_unscored(self, step: int) -> CommittedCheckpoint | None:
        """Return the checkpoint of a step and keep it until it is scored; None if a newer one waits for its score."""
        return self._state.writer.newest_unscored(step)

    def await_score(self, step: int) -> None:
        """Record that a validation task will score the checkpoint of a step."""
        self._state.writer.await_score(step)

    def add_score(self, step: int, metrics: Mapping[str, float]) -> None:
        """Attach scores to the checkpoint of an earlier step."""
        if (reason := self._state.add_score(step, metrics)) and not self._is_stopped:
            self._state.stop_early(reason)
            self.request("stop")

    def give_up_score(self, step: int, reason: str) -> None:
        """Record that a checkpoint cannot be scored."""
        self._state.give_up_score(step, reason)

    def request(self, request: Request) -> None:
        """Request a checkpoint of all ranks, or that they stop after one."""
        self._reply = self._reply.with_request(request)

    def controller(self) -> Any:  # noqa: ANN401  Ray's handles have no type
        """Return Ray's handle of Ray Train's controller; None until it is known."""
        return self._current.controller

    def progress(self, num_events_known: int = 0) -> RunProgress:
        """Return the progress of the run, without the first ``num_events_known`` log lines, which the caller has."""
        events, num_events = self._state.events.after(num_events_known)
        return RunProgress(
            attempt=self._state.record.attempt,
            row=self._state.row,
            events=events,
            num_events=num_events,
            num_steps_redone=self._state.num_steps_redone,
            final_failure=self._current.final_failure,
            is_stopped=self._is_stopped,
            latest=self._state.record.latest,
            workers=self._current.workers,
            may_save=self._current.may_save(),
            best=self._state.record.best,
            phase=self._current.phase,
            validated=self._state.validated,
            stopped_early=self._state.record.stopped_early,
        )

    def finish(self, status: str) -> bool:
        """End the run with status FINISHED, FAILED or KILLED; return whether the tracker has all rows."""
        self._is_over = True
        self._current.close()
        return self._state.finish(status)

    def _is_current(self, attempt: int) -> bool:
        return self._current.is_training and attempt == self._state.record.attempt

    def _require_current(self, attempt: int) -> None:
        if not self._is_current(attempt):
            now = self._state.record.attempt
            raise PermissionError(f"attempt {attempt} was replaced by {now}; its checkpoint is not committed")

    def _add_rows(self, rows: Sequence[Row]) -> None:
        self._state.add_rows(rows)
        if rows:
            self._current.step = rows[-1].step
