"""State machine of one attempt: waiting for workers, starting, training, ended.

Collects failures and asks the restart policy whether to try again.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.coordination.hang_detection import Watchdog
from cluster.coordination.messages import (
    ControllerLost,
    ControllerStarted,
    CoordinatorSettings,
    Phase,
    StartFailed,
    TrainEvent,
    WorkerError,
    WorkerInfo,
    WorkersFailed,
    WorkersStarted,
    WorkersStarting,
    workers_text,
)
from cluster.coordination.restart_policy import AttemptHistory, Ending, Failure, FinalFailure, deaths_of

# A worker may hang before or after Ray Train learns where it runs; the user sees one message for both.
_START_HANGS = "the start of the workers hangs"
_SILENT_SECONDS = 10.0  # a rank silent for longer will not write a checkpoint soon


class CurrentAttempt:
    """State of the current attempt, from the start of its worker group to its end; then of the next attempt.

    Args:
        settings: settings of the run's coordinator.
        log_event: function that logs a line for the user.
        kill: function that kills the processes of the given workers, called when one of them hangs.
        end_controller: function that ends Ray Train's controller, given its handle, when a group does not start.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        *,
        log_event: Callable[[str], None],
        kill: Callable[[Sequence[WorkerInfo]], None],
        end_controller: Callable[[Any], None],
    ) -> None:
        self._batch_size, self._log_event, self._end_controller = settings.batch_size, log_event, end_controller
        self._history = AttemptHistory(settings.max_restarts, settings.max_preemptions)
        self._failures: list[Failure] = []
        self._ending: Ending = "crash"
        self._began_at: int | None = None
        self.final_failure: FinalFailure | None = None
        """Reason that there is no further attempt; None while there may be one."""
        self.phase: Phase = "waiting"
        """What the worker group does."""
        self.step = 0
        """Number of steps done, as last reported."""
        self.workers: tuple[WorkerInfo, ...] = ()
        """Ranks of the latest group that began to train."""
        self.controller: Any = None
        """Ray's handle of Ray Train's controller; None until it is known."""
        # The watchdog calls from its own thread. Reentrant, because _end calls close with the lock held.
        self._deciding = threading.RLock()
        self._watchdog = Watchdog(
            self._note_hang,
            self._end_late_start,
            hang_seconds=settings.hang_seconds,
            start_seconds=settings.start_seconds,
            kill=kill,
        )

    @property
    def is_training(self) -> bool:
        """Return whether a worker group is training."""
        return self.phase == "training"

    def notify(self, event: TrainEvent) -> None:
        """Handle an event of Ray Train's controller or workers."""
        with self._deciding:
            match event:
                case ControllerStarted(controller):
                    self.controller = controller
                case WorkersStarting(num_workers, controller):
                    self.controller = controller
                    self._enter("waiting")
                    self._watchdog.expect()
                    self._log_event(f"starting {workers_text(num_workers)}")
                case WorkersStarted(workers) if self.phase == "waiting":
                    self.phase = "starting"
                    self._watchdog.begin(workers)
                case StartFailed(reason) if self.phase in ("waiting", "starting"):
                    self._crash(f"the workers did not start: {reason}")
                case WorkersFailed(errors) if self.phase != "ended":
                    self._end_by_errors(errors)
                case ControllerLost(reason):
                    self._crash(reason)

    def begin(self, step: int, workers: Sequence[WorkerInfo]) -> None:
        """Record that a group begins to train.

        Args:
            step: number of steps done in the checkpoint that it resumes from; 0 without one.
            workers: ranks of the group.
        """
        with self._deciding:
            self._enter("training")
            self.step = self._began_at = step
            self.workers = tuple(workers)
            self._watchdog.begin(workers)

    def _enter(self, phase: Phase) -> None:
        if self.is_training:  # a resize replaces the group without a report that the old one ended
            self._end()
        self._failures, self._ending, self.phase = [], "crash", phase
        self._began_at = None

    def heartbeat(self, rank: int, progress: int) -> None:
        """Record a rank's heartbeat.

        Args:
            rank: number of the rank.
            progress: counter that grows while the rank makes progress.
        """
        self._watchdog.heartbeat(rank, progress)

    def note_checkpoint(self) -> None:
        """Record that a checkpoint was committed, which resets the count of crashes in a row."""
        self._history.note_checkpoint()

    def note_stopped(self) -> None:
        """Record that the ranks have stopped; they are no longer watched for hangs."""
        self._watchdog.end()

    def may_save(self) -> bool:
        """Return whether a checkpoint can still come: a group is training, and all of its ranks send heartbeats."""
        return self.is_training and self._watchdog.seconds_silent() <= _SILENT_SECONDS

    def fail(self, failure: Failure) -> None:
        """Record how a rank failed; a failure that all ranks agree on ends the attempt and the run."""
        with self._deciding:
            if self.phase == "ended":
                return
            self._failures.append(failure)
            if not failure.is_collateral:
                self._log_event(f"rank {failure.rank} failed at step {failure.step}: {failure.reason}")
            if failure.is_agreed:
                self._end()

    def set_ending(self, ending: Ending) -> None:
        """Record why the attempt is about to end when that is not a crash."""
        with self._deciding:
            self._ending = ending

    def close(self) -> None:
        """Ignore all further events of the group."""
        with self._deciding:
            self.phase = "ended"
            self._watchdog.end()

    def _end_by_errors(self, errors: Mapping[int, WorkerError]) -> None:
        lost = self._lost(errors)
        if self._ending == "crash":
            for failure in lost:
                self._log_event(f"rank {failure.rank} was lost after step {failure.step}: {failure.reason}")
            if not lost and self._failures and all(failure.is_collateral for failure in self._failures):
                self._log_event(f"a rank that others waited for was lost after step {self.step}")
        self._failures += lost
        self._end()

    def _lost(self, errors: Mapping[int, WorkerError]) -> list[Failure]:
        """Return the failures of ranks that died, and of ranks that raised without reporting it to the coordinator."""
        reported = {failure.rank for failure in self._failures}
        deaths = {rank: error.text for rank, error in errors.items() if error.is_death}
        others = {rank: error.text for rank, error in errors.items() if not error.is_death and rank not in reported}
        lost = deaths_of(deaths, step=self.step, batch_size=self._batch_size)
        unreported = deaths_of(others, step=self.step, batch_size=self._batch_size)
        return lost + [one._replace(is_death=False) for one in unreported]

    def _note_hang(self, worker: WorkerInfo, seconds: float) -> None:
        """Record that a rank sent no heartbeat, or made no progress, for too long."""
        with self._deciding:
            if self.phase == "ended":
                return
            reason = f"{worker} made no progress for {seconds:.0f} s (--cluster.hang-seconds)"
            self._log_event(f"{'the workers hang' if self.is_training else _START_HANGS}: {reason}")
            self._failures.append(self._death(reason, worker))

    def _end_late_start(self, seconds: float) -> None:
        """End Ray Train's controller, which would wait forever for a worker that hangs before its process is known."""
        with self._deciding:
            # The workers may have become known while the watchdog's thread waited for the lock.
            if self.phase != "waiting" or self.controller is None:
                return
            reason = f"the workers did not start within {seconds:.0f} s (--cluster.hang-seconds)"
            self._log_event(f"{_START_HANGS}: {reason}")
            self._failures.append(self._death(reason))
            controller = self.controller
        self._end_controller(controller)  # outside the lock: it calls Ray

    def _crash(self, reason: str) -> None:
        """End the attempt for a cause outside the ranks, such as the death of Ray Train's controller."""
        self._failures.append(self._death(reason))
        self._log_event(f"the attempt failed: {reason}")
        self._end()

    def _end(self) -> None:
        """End the attempt, and let the restart policy decide whether another one follows."""
        self.close()
        has_trained = self._began_at is not None and self.step > self._began_at
        failure = self._history.end(self._ending, self._failures, has_trained=has_trained)
        self.final_failure = self.final_failure or failure

    def _death(self, reason: str, worker: WorkerInfo | None = None) -> Failure:
        rank, node = (worker.rank, worker.host) if worker else (-1, "unknown")
        return Failure(rank, self.step, self.step * self._batch_size, reason, is_death=True, node=node)
