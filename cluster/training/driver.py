"""Driver of a training run: starts Ray Train, follows the run, and stops it on a signal."""

import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    RayError,
)

from cluster.config import TrainRun
from cluster.coordination.coordinator import Coordinator
from cluster.coordination.messages import ANSWER_SECONDS, ControllerLost, CoordinatorSettings, RunProgress
from cluster.errors import failure_line
from cluster.resources import leftovers
from cluster.resources.environment import NAMESPACE
from cluster.resources.placement import on_node
from cluster.runs.record import lock_run
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.signals import listening
from cluster.training.failure_report import failure_text
from cluster.training.group_trainer import GroupTrainer
from cluster.training.progress import ProgressLog, StepProgress

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]  # MLflow's names

_POLL_SECONDS, _FOLLOW_SECONDS = 0.05, 0.5
# Ray sends SIGKILL to a stopped job 3 s after SIGTERM. The rest of that time is for setting the MLflow run's status.
_STOP_SECONDS = 1.5
_COORDINATOR_RETURNS_SECONDS = 60.0
_THREAD_ENDS_SECONDS = 10.0
# By default, MLflow retries for minutes when a tracker is down. The coordinator sends everything again later anyway.
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class TrainThread(threading.Thread):
    """Ray Train's blocking ``fit`` in a thread, so that the driver can react to signals meanwhile.

    Args:
        trainer: the trainer to run.
    """

    def __init__(self, trainer: GroupTrainer) -> None:
        super().__init__(daemon=True, name="captioning-fit")
        self._trainer = trainer
        self.error = ""
        """The error that ``fit`` raised, on one line; empty if it raised none."""

    def run(self) -> None:
        """Train; keep an error for the driver."""
        try:
            self._trainer.fit()
        except Exception as error:  # the driver decides whether to start again
            self.error = failure_line(error)


class Driver:
    """Follows one training run.

    Args:
        run: the training run to follow.
        coordinator: Ray's actor handle of the coordinator.
        num_steps: number of steps of the whole training.
        about: values that describe the run, for ``captioning status`` of a submitted job.
        is_wanted: polled; when it returns False the run stops after a checkpoint, as on SIGTERM.
        show_step: function that is called after each step, instead of a log line every 10 s.
    """

    def __init__(
        self,
        run: TrainRun,
        coordinator: Any,  # noqa: ANN401  Ray has no type for a handle
        *,
        num_steps: int,
        about: Mapping[str, Any] | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
        show_step: Callable[[StepProgress], None] | None = None,
    ) -> None:
        self._run, self._coordinator, self._is_wanted = run, coordinator, is_wanted
        self._log = ProgressLog(num_steps, about=about, show_step=show_step)
        self._num_steps = num_steps
        self._progress = RunProgress(0, None, [])
        self._signals: list[int] = []

    def train(self, build: Callable[[int], GroupTrainer]) -> bool:
        """Train to the end; return whether the tracker has everything.

        Args:
            build: function that returns Ray's trainer; called with 1, then with 2, 3, ... after each loss of Ray
                Train's controller.

        Raises:
            RuntimeError: training failed, and the restart policy allows no further attempt.
            KeyboardInterrupt: the process received SIGINT; a checkpoint was requested first.
            SystemExit: the process received SIGTERM, or the run is no longer wanted; a checkpoint was requested first.
        """
        status: Status = "FAILED"
        thread: TrainThread | None = None
        try:
            with listening() as self._signals:
                for number in itertools.count(1):
                    leftovers.remove_leftovers()
                    thread = TrainThread(build(number))
                    thread.start()
                    if ended := self._follow(thread):
                        status = ended
                        break
        finally:
            is_tracked = self._finish(status)
            self._log.show(self._progress, is_last=True)
            self._end_train()
            self._end_coordinator()
            if thread:  # it must not outlive the Ray session, which its next call would then start anew
                thread.join(_THREAD_ENDS_SECONDS)
        if status == "FAILED":
            raise RuntimeError(failure_text(self._run, self._progress))
        if status == "KILLED":
            self._exit()
        return is_tracked

    @property
    def _signal(self) -> int | None:
        """Return the first signal that was received, if any."""
        return self._signals[0] if self._signals else None

    def _follow(self, thread: TrainThread) -> Status | None:
        """Wait until training is over; return its status, or None if Ray Train's controller was lost."""
        polled_at = stopping_since = 0.0
        while True:
            now = time.monotonic()
            if not stopping_since and (self._signal or not self._is_wanted()):
                stopping_since = now
                self._call("request", "stop")
                self._log_stop()
            if now - polled_at >= (_POLL_SECONDS if stopping_since else _FOLLOW_SECONDS):
                polled_at = now
                self._log.show(self._poll())
            if self._progress.final_failure:
                self._end_train()
                return "FAILED"
            if stopping_since and (self._progress.is_stopped or self._is_overdue(now - stopping_since)):
                return "FINISHED" if self._is_done() else "KILLED"
            if not thread.is_alive():
                if thread.error:
                    self._call("notify", ControllerLost(f"Ray Train ended: {thread.error}"))
                    return "FAILED" if self._poll().final_failure else None
                return "FINISHED" if not stopping_since or self._is_done() else "KILLED"
            thread.join(_POLL_SECONDS)

    def _log_stop(self) -> None:
        """Log what a stop on Ctrl-C waits for."""
        if self._signal == signal.SIGINT:
            what = "stopping after this step, with a checkpoint" if self._poll().may_save else "stopping"
            logger.warning("%s; press Ctrl-C again to quit at once", what)

    def _is_overdue(self, seconds: float) -> bool:
        """Return whether a stop that was requested some seconds ago no longer waits for the last checkpoint.

        Ctrl-C has no deadline: it waits as long as a checkpoint can still come.
        """
        return seconds > _STOP_SECONDS and not (self._signal == signal.SIGINT and self._progress.may_save)

    def _is_done(self) -> bool:
        """Return whether nothing is left to train: the last step is committed and scored, or the run stops early."""
        latest = self._progress.latest
        if self._progress.stopped_early:
            return True
        return latest is not None and latest.step >= self._num_steps and VALIDATION_LOSS in latest.metrics

    def _poll(self) -> RunProgress:
        """Return the run's progress from the coordinator.

        If the coordinator was killed, wait until Ray has restarted it; after a signal, return the last known progress.

        Raises:
            RuntimeError: the coordinator does not answer and does not restart in time.
        """
        deadline = time.monotonic() + _COORDINATOR_RETURNS_SECONDS
        while True:
            try:
                asked = self._coordinator.progress.remote(self._log.num_events)
                progress: Any = ray.get(asked, timeout=_COORDINATOR_RETURNS_SECONDS)
            except (ActorDiedError, ActorUnavailableError, GetTimeoutError) as error:
                if self._signal:
                    return self._progress
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the coordinator of run {self._run.name} does not answer; run the same command again to resume"
                    ) from error
                time.sleep(_FOLLOW_SECONDS)
            else:
                self._progress = progress
                return self._progress

    def _call(self, method: str, argument: Any) -> None:  # noqa: ANN401  as above
        """Call a method of the coordinator; ignore a coordinator that is gone or does not answer soon."""
        try:
            ray.get(getattr(self._coordinator, method).remote(argument), timeout=_STOP_SECONDS)
        except (RayError, GetTimeoutError) as error:
            logger.debug("the coordinator did not accept %s %s", method, argument, exc_info=error)

    def _end_train(self) -> None:
        """Abort Ray Train's controller, which ends its workers and removes its placement group."""
        try:
            controller: Any = ray.get(self._coordinator.controller.remote(), timeout=_STOP_SECONDS)
            if controller is not None:
                ray.get(controller.abort.remote(), timeout=_COORDINATOR_RETURNS_SECONDS)
        except RayError as error:  # the expected end of this call: an aborted actor exits before it answers
            logger.debug("the controller has ended", exc_info=error)

    def _end_coordinator(self) -> None:
        """Kill the coordinator and wait until it is gone.

        If the Ray session goes on, nothing else ends it, and it would keep the run's lock and its actor name.
        """
        try:
            ray.kill(self._coordinator)
            ray.get(self._coordinator.progress.remote(), timeout=_COORDINATOR_RETURNS_SECONDS)
        except RayError as error:  # as above
            logger.debug("the coordinator has ended", exc_info=error)

    def _finish(self, status: Status) -> bool:
        """Have the coordinator finish the run; return whether the tracker has everything.

        If the coordinator is killed meanwhile, try once more when it is back; after a signal there is no time for that.
        """
        for is_last in (self._signal is not None, True):
            try:
                self._poll()
                return bool(ray.get(self._coordinator.finish.remote(status), timeout=ANSWER_SECONDS))
            except (RayError, RuntimeError) as error:
                if is_last or not isinstance(error, ActorDiedError | ActorUnavailableError):
                    logger.warning("the coordinator could not finish the run: %s", str(error).splitlines()[0])
                    break
        return False

    def _exit(self) -> None:
        """Raise KeyboardInterrupt after SIGINT; otherwise SystemExit with the usual exit code, 128 + signal."""
        latest = self._progress.latest
        where = f"after step {latest.step}" if latest else "before the first checkpoint"
        stopped = f"stopped {where}; run the same command again to resume"
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt(stopped)
        logger.warning("%s", stopped)
        raise SystemExit(128 + int(self._signal or 0))


def start_coordinator(folder: Path, settings: CoordinatorSettings) -> Any:  # noqa: ANN401  Ray's handles have no type
    """Start the coordinator of a run as a named actor on the driver's node; return its handle.

    Args:
        folder: folder of the run; holds its ``run.json``.
        settings: settings of the coordinator.

    Raises:
        BlockingIOError: another driver is running the run.
        RuntimeError: the coordinator does not start.
        TimeoutError: Ray starts no process for it.
    """
    try:
        actor_class: Any = ray.remote(num_cpus=0, max_restarts=-1)(Coordinator)
        actor = actor_class.options(
            name=f"coordinator{folder}",
            namespace=NAMESPACE,
            scheduling_strategy=on_node(ray.get_runtime_context().get_node_id()),
        ).remote(folder, settings, environment=_IMPATIENCE)
        ray.get(actor.progress.remote(), timeout=ANSWER_SECONDS)
    except ActorAlreadyExistsError as error:
        raise BlockingIOError(
            f"run {folder.name} has a live driver on this cluster; wait for it, or stop it"
        ) from error
    except ActorDiedError as error:
        # If the coordinator died because another driver holds the run's lock, this raises an error that says so.
        lock_run(folder).close()
        cause = str(error).strip().splitlines()[-1]
        raise RuntimeError(f"the coordinator of run {folder.name} did not start: {cause}") from error
    return actor
