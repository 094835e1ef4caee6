"""The one process that decides what of a training run counts: which checkpoints, which rows, which attempt.

A named actor on the driver's node that reserves no CPU and ends with the driver. Ranks hand it rows and
checkpoints; it keeps the journal and ``run.json``, and sends the journal to MLflow. A worker that was cut off and
replaced still knows its old attempt's number, by which it is refused.
"""

import fcntl
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import ray
from mlflow import MlflowClient
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from ray.exceptions import ActorDiedError

from cluster.journal import Journal, Row
from cluster.runs import CommittedCheckpoint, RunRecord, load_record, remove_uncounted
from cluster.tracking import ship

logger = logging.getLogger(__name__)

_SHIP_EVERY_SECONDS = 5.0
_LAST_SHIPPING_SECONDS = 30.0
_SYSTEM_METRICS_EVERY_SECONDS = 10
# MLflow would try for minutes to reach a tracker that is down; the coordinator comes back to it anyway.
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
NAMESPACE = "captioning"


class Attempt(NamedTuple):
    """One start of the worker group."""

    number: int
    checkpoint: CommittedCheckpoint | None


class Progress(NamedTuple):
    """How far a run is, for people.

    Attributes:
        attempt: that is running.
        row: latest metrics, with their step.
        events: what happened so far, in order.
    """

    attempt: int
    row: Row | None
    events: list[str]


class Coordinator:
    """Keeps one run's record and journal.

    Args:
        folder: of the run; holds its ``run.json``.
        tracking_uri: of the tracker.
        keep_best: checkpoints of the lowest validation loss to keep.
        keep_last: latest checkpoints to keep.

    Raises:
        BlockingIOError: another live driver has the run.
    """

    def __init__(self, folder: Path, tracking_uri: str, *, keep_best: int, keep_last: int) -> None:
        self._lock_file = hold_run(folder)
        record = load_record(folder)
        if record is None:
            self._lock_file.close()
            raise ValueError(f"{folder} holds no run.json; the driver writes it first")
        self._folder, self._keep = folder, {"keep_best": keep_best, "keep_last": keep_last}
        self._record: RunRecord = record
        self._journal = Journal(folder / "journal")
        self._row: Row | None = None
        self._events: list[str] = []
        self._tracking_uri = tracking_uri
        self._is_ending = threading.Event()
        self._shipping = threading.Lock()
        self._shipper = threading.Thread(target=self._ship_until_the_end, daemon=True)
        self._shipper.start()
        self._monitor = _start_monitor(record, tracking_uri)

    def begin_attempt(self) -> Attempt:
        """Start a new attempt, from the latest checkpoint that counts; earlier attempts are refused from now on."""
        self._record = replace(self._record, attempt=self._record.attempt + 1)
        self._record.save(self._folder)
        remove_uncounted(self._folder, self._record)
        latest = self._record.latest
        if latest or self._record.attempt > 1:
            self._events.append(f"attempt {self._record.attempt} resumes at step {latest.step if latest else 0}")
        return Attempt(self._record.attempt, latest)

    def add_row(self, attempt: int, step: int, metrics: Mapping[str, float]) -> None:
        """Journal the metrics of a step."""
        if attempt != self._record.attempt:
            return
        row = Row(step, int(time.time() * 1000), dict(metrics))
        self._journal.append(row)
        self._row = row

    def commit(self, attempt: int, step: int, metrics: Mapping[str, float]) -> None:
        """Make a checkpoint count that is completely written.

        Raises:
            PermissionError: the attempt is no longer the current one.
        """
        if attempt != self._record.attempt:
            raise PermissionError(
                f"attempt {attempt} was replaced by {self._record.attempt}; its checkpoint does not count"
            )
        self._journal.flush()
        checkpoint = CommittedCheckpoint(step=step, attempt=attempt, metrics=dict(metrics))
        self._record = self._record.with_checkpoint(checkpoint, **self._keep)
        self._record.save(self._folder)
        remove_uncounted(self._folder, self._record)
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())
        self._events.append(f"checkpoint at step {step}: {shown}")

    def add_failure(self, rank: int, reason: str) -> None:
        """Note for people why a rank failed."""
        self._events.append(f"attempt {self._record.attempt} failed on rank {rank}: {reason}")

    def progress(self) -> Progress:
        """Return how far the run is."""
        return Progress(self._record.attempt, self._row, list(self._events))

    def finish(self, status: str) -> bool:
        """End the run: FINISHED, FAILED or KILLED; return whether the tracker has everything."""
        self._journal.flush()
        if status == "FINISHED":
            self._record = replace(self._record, is_finished=True)
            self._record.save(self._folder)
        self._is_ending.set()
        self._shipper.join()
        if self._monitor:
            self._monitor.finish()
        with self._lock_file:
            return self._ship_the_rest(status)

    def _ship_until_the_end(self) -> None:
        while not self._is_ending.wait(_SHIP_EVERY_SECONDS):
            self._journal.flush()
            self._ship()

    def _ship_the_rest(self, status: str) -> bool:
        deadline = time.monotonic() + _LAST_SHIPPING_SECONDS
        while not self._ship(status):
            if time.monotonic() > deadline:
                return False
            time.sleep(1)
        return True

    def _ship(self, status: str = "RUNNING") -> bool:
        with self._shipping:
            try:
                ship(MlflowClient(self._tracking_uri), self._record.mlflow_run_id, self._journal, status=status)
            except Exception as error:  # a broken tracker raises whatever its database or server does
                logger.warning("the tracker does not take metrics, training goes on: %s", error)
                return False
            return True


def hold_run(folder: Path) -> TextIO:
    """Take the run for this process until it ends, however it ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    file = (folder / "driver.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BlockingIOError(f"run {folder.name} has a live driver already; wait for it, or stop it") from None
    return file


def _start_monitor(record: RunRecord, tracking_uri: str) -> SystemMetricsMonitor | None:
    try:
        monitor = SystemMetricsMonitor(
            record.mlflow_run_id,
            sampling_interval=_SYSTEM_METRICS_EVERY_SECONDS,
            resume_logging=record.num_starts > 1,
            tracking_uri=tracking_uri,
        )
        monitor.start()
    except Exception as error:  # as above
        logger.warning("no system metrics: %s", error)
        return None
    return monitor


def _actor_class() -> Any:  # noqa: ANN401  Ray makes a class that types cannot tell
    return ray.remote(num_cpus=0)(Coordinator)


def start_coordinator(folder: Path, tracking_uri: str, *, keep: Sequence[int]) -> Any:  # noqa: ANN401  Ray's handles have no type
    """Start the coordinator of a run as a named actor beside the driver, with (k best, k latest) to keep.

    Raises:
        BlockingIOError: the run has a live driver.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    try:
        actor = (
            _actor_class()
            .options(
                runtime_env={"env_vars": _IMPATIENCE},
                name=f"coordinator{folder}",
                namespace=NAMESPACE,
                scheduling_strategy=here,
            )
            .remote(folder, tracking_uri, keep_best=keep[0], keep_last=keep[1])
        )
        ray.get(actor.progress.remote())
    except ValueError as error:
        raise BlockingIOError(
            f"run {folder.name} has a live driver on this cluster; wait for it, or stop it"
        ) from error
    except ActorDiedError as error:
        if "has a live driver" in str(error):
            raise BlockingIOError(f"run {folder.name} has a live driver already; wait for it, or stop it") from error
        cause = str(error).strip().splitlines()[-1]
        raise RuntimeError(f"the coordinator of run {folder.name} did not start: {cause}") from error
    return actor
