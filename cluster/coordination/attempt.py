"""State machine of one attempt: waiting for workers, starting, training, ended.

Collects failures and asks the restart policy whether to try again.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from cluster.coordination.messages import (
    ControllerLost,
    ControllerStarted,
    CoordinatorSettings,
    StartFailed,
    TrainEvent,
    WorkerError,
    WorkerInfo,
    WorkersFailed,
    WorkersStarted,
    WorkersStarting,
)
from cluster.coordination.restart_policy import AttemptHistory, Ending, Failure, FinalFailure, deaths_of
from cluster.coordination.watchdog import Watchdog

Phase = Literal["waiting", "starting", "training", "ended"]

# A worker may hang before or after Ray Train learns where it runs; people are told the same.
_START_HANGS = "the start of the workers hangs"
_SILENT_SECONDS = 10.0  # after which a rank is not going to write a checkpoint soon


class CurrentAttempt:
    """Follows an attempt from the start of its group to its end; then the next.

    Args:
        settings: settings of the run.
        log_event: logs an event for people.
        kill: kills the processes of workers of which one hangs.
        end_controller: ends Train's controller, given its handle, when a group does not start.
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
        self._phase: Phase = "waiting"
        self._began_at: int | None = None
        self.final_failure: FinalFailure | None = None
        """Why there is no further attempt."""
        self.step = 0
        """Last known number of steps done."""
        self.workers: tuple[WorkerInfo, ...] = ()
        """Ranks of the latest group that began."""
        self.controller: Any = None
        """Ray's handle of Train's controller, once it is known."""
        self._deciding = threading.RLock()  # the watchdog has a thread of its own
        self._watchdog = Watchdog(
            self._note_hang,
            self._end_late_start,
            hang_seconds=settings.hang_seconds,
            start_seconds=settings.start_seconds,
            kill=kill,
        )

    @property
    def is_training(self) -> bool:
        """Return whether a group of ranks trains."""
        return self._phase == "training"

    def notify(self, event: TrainEvent) -> None:
        """Take what Ray Train says of its controller and its workers."""
        with self._deciding:
            match event:
                case ControllerStarted(controller):
                    self.controller = controller
                case WorkersStarting(num_workers, controller):
                    self.controller = controller
                    self._enter("waiting")
                    self._watchdog.expect()
                    self._log_event(f"starting {num_workers} workers")
                case WorkersStarted(workers) if self._phase == "waiting":
                    self._phase = "starting"
                    self._watchdog.begin(workers)
                case StartFailed(reason) if self._phase in ("waiting", "starting"):
                    self._crash(f"the workers did not start: {reason}")
                case WorkersFailed(errors) if self._phase != "ended":
                    self._end_by_errors(errors)
                case ControllerLost(reason):
                    self._crash(reason)

    def begin(self, step: int, workers: Sequence[WorkerInfo]) -> None:
        """Note that a group begins to train, at a step."""
        with self._deciding:
            self._enter("training")
            self.step = self._began_at = step
            self.workers = tuple(workers)
            self._watchdog.begin(workers)

    def _enter(self, phase: Phase) -> None:
        if self.is_training:
            self._end()
        self._failures, self._ending, self._phase = [], "crash", phase
        self._began_at = None

    def heartbeat(self, rank: int, progress: int) -> None:
        """Take a rank's heartbeat; ``progress`` grows as long as the rank makes progress."""
        self._watchdog.heartbeat(rank, progress)

    def note_checkpoint(self) -> None:
        """Note that a checkpoint counts, and so the run makes progress."""
        self._history.note_checkpoint()

    def note_stopped(self) -> None:
        """Note that the ranks have stopped; from now on none of them can hang."""
        self._watchdog.end()

    def may_save(self) -> bool:
        """Return whether a group trains of which no rank is silent, so that a checkpoint may come."""
        return self.is_training and self._watchdog.seconds_silent() <= _SILENT_SECONDS

    def fail(self, failure: Failure) -> None:
        """Note how a rank failed; if all fail alike, the attempt is over, and there is no further one."""
        with self._deciding:
            if self._phase == "ended":
                return
            self._failures.append(failure)
            if not failure.is_collateral:
                self._log_event(f"rank {failure.rank} failed at step {failure.step}: {failure.reason}")
            if failure.is_agreed:
                self._end()

    def set_ending(self, ending: Ending) -> None:
        """Note that the attempt is going to end by no fault of its own."""
        with self._deciding:
            self._ending = ending

    def close(self) -> None:
        """Follow nothing any more, whatever becomes of the group."""
        with self._deciding:
            self._phase = "ended"
            self._watchdog.end()

    def _end_by_errors(self, errors: Mapping[int, WorkerError]) -> None:
        lost = self._lost(errors)
        if self._ending == "crash":
            for failure in lost:
                self._log_event(f"rank {failure.rank} is gone, after step {failure.step}: {failure.reason}")
            if not lost and self._failures and all(failure.is_collateral for failure in self._failures):
                self._log_event(f"a rank is gone that others waited for, after step {self.step}")
        self._failures += lost
        self._end()

    def _lost(self, errors: Mapping[int, WorkerError]) -> list[Failure]:
        """Return the failures of ranks that are gone, and of those that did not report how they failed."""
        reported = {failure.rank for failure in self._failures}
        deaths = {rank: error.text for rank, error in errors.items() if error.is_death}
        others = {rank: error.text for rank, error in errors.items() if not error.is_death and rank not in reported}
        lost = deaths_of(deaths, step=self.step, batch_size=self._batch_size)
        unreported = deaths_of(others, step=self.step, batch_size=self._batch_size)
        return lost + [one._replace(is_death=False) for one in unreported]

    def _note_hang(self, worker: WorkerInfo, seconds: float) -> None:
        """Note that a rank sent no heartbeat, or made no progress."""
        with self._deciding:
            if self._phase == "ended":
                return
            reason = f"{worker} gave no sign of progress for {seconds:.0f} s (--cluster.hang-seconds)"
            self._log_event(f"{'the workers hang' if self.is_training else _START_HANGS}: {reason}")
            self._failures.append(self._death(reason, worker))

    def _end_late_start(self, seconds: float) -> None:
        """End Train's controller, which waits for ever for a worker that hangs before it says where it is."""
        with self._deciding:
            if self._phase != "waiting" or self.controller is None:
                return
            reason = f"the workers did not start within {seconds:.0f} s (--cluster.hang-seconds)"
            self._log_event(f"{_START_HANGS}: {reason}")
            self._failures.append(self._death(reason))
            controller = self.controller
        self._end_controller(controller)

    def _crash(self, reason: str) -> None:
        """End by something else than a rank, such as the death of Train's controller."""
        self._failures.append(self._death(reason))
        self._log_event(f"the attempt failed: {reason}")
        self._end()

    def _end(self) -> None:
        """End the attempt, and decide whether there is to be a further one."""
        self.close()
        has_trained = self._began_at is not None and self.step > self._began_at
        failure = self._history.end(self._ending, self._failures, has_trained=has_trained)
        self.final_failure = self.final_failure or failure

    def _death(self, reason: str, worker: WorkerInfo | None = None) -> Failure:
        rank, node = (worker.rank, worker.host) if worker else (-1, "unknown")
        return Failure(rank, self.step, self.step * self._batch_size, reason, is_death=True, node=node)
