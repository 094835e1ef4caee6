"""Logging of a run's metrics, from its journal, to MLflow during training; training never waits for the tracker.

Nor does the start of a run wait for MLflow, which takes a second to import: the thread that ships imports it.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.runs.journal import Journal, Row, mark_shipped
from cluster.runs.record import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from cluster.tracking.access import tracker_line

_METRICS_PER_BATCH = 1000  # MLflow's own limit

logger = logging.getLogger(__name__)

_SHIP_EVERY_SECONDS = 5.0
_SYSTEM_METRICS_EVERY_SECONDS = 10
# Time, in seconds, to ship the last rows; then the run ends without them, and a replay can send them later.
_LAST_SECONDS = {"FINISHED": 30.0, "FAILED": 10.0, "KILLED": 1.0}
_NO_TAGS: Mapping[str, str] = {}
STOPPED_EARLY_TAG, HEALTH_TAG = "stopped_early", "health"


class Shipper:
    """Flushes and ships a journal every few seconds, in a background thread.

    Args:
        journal: journal of the run.
        record: record of the run, which names its MLflow run.
        tracking_uri: address of the tracker.
    """

    def __init__(self, journal: Journal, record: RunRecord, tracking_uri: str) -> None:
        self._journal, self._run_id, self._tracking_uri = journal, record.mlflow_run_id, tracking_uri
        self._tags: dict[str, str] = {}
        self._is_ending = threading.Event()
        self._shipping = threading.Lock()
        self._monitor: SystemMetricsMonitor | None = None
        self._thread = threading.Thread(
            target=self._ship_until_the_end, args=(record,), daemon=True, name="captioning-shipper"
        )
        self._thread.start()

    def finish(self, status: str, tags: Mapping[str, str] | None = None) -> bool:
        """Ship the remaining rows and end the MLflow run.

        Args:
            status: status of the MLflow run: FINISHED, FAILED or KILLED.
            tags: tags to set on the MLflow run.

        Returns:
            Whether the tracker has all rows and the status.
        """
        seconds = _LAST_SECONDS[status]
        self._journal.flush()
        self._is_ending.set()
        is_tracked = threading.Event()
        last = threading.Thread(
            target=self._ship_the_rest,
            args=(status, seconds, is_tracked, tags or {}),
            daemon=True,
            name="captioning-shipper-last",
        )
        last.start()
        last.join(seconds)
        return is_tracked.is_set()

    def set_tag(self, name: str, value: str) -> None:
        """Set a tag on the MLflow run, with the next rows."""
        self._tags[name] = value

    def _ship_the_rest(self, status: str, seconds: float, is_tracked: threading.Event, tags: Mapping[str, str]) -> None:
        deadline = time.monotonic() + seconds
        if status == "KILLED":
            self._end_run(status)  # first, because this process may be killed before the rows are shipped
        while not self._ship(status, tags):
            if time.monotonic() > deadline:
                return
            time.sleep(0.2)
        is_tracked.set()
        if self._monitor:
            self._monitor.finish()

    def _end_run(self, status: str) -> None:
        try:
            _client(self._tracking_uri).set_terminated(self._run_id, status=status)
        except Exception as error:  # as in _ship
            logger.warning("the tracker does not accept the run's status: %s", tracker_line(error))

    def _ship_until_the_end(self, record: RunRecord) -> None:
        self._monitor = _start_monitor(record, self._tracking_uri)
        while not self._is_ending.wait(_SHIP_EVERY_SECONDS):
            try:
                self._journal.flush()
            except OSError as error:  # such as a full disk: the rows stay in memory until a flush succeeds
                logger.warning("the journal cannot be written: %s", error)
            else:
                self._ship()

    def _ship(self, status: str = "RUNNING", tags: Mapping[str, str] = _NO_TAGS) -> bool:
        with self._shipping:
            waiting = self._tags.copy()
            try:
                segments = self._journal.unshipped()
                ship(_client(self._tracking_uri), self._run_id, segments, status=status, tags={**waiting, **tags})
            except Exception as error:  # a broken tracker raises any error of its database or server
                logger.warning("the tracker does not accept metrics; training continues: %s", tracker_line(error))
                return False
            for name, value in waiting.items():
                if self._tags.get(name) == value:  # not set again meanwhile
                    del self._tags[name]
            return True


def _client(tracking_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri)


def _start_monitor(record: RunRecord, tracking_uri: str) -> "SystemMetricsMonitor | None":
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    try:
        monitor = SystemMetricsMonitor(
            record.mlflow_run_id,
            sampling_interval=_SYSTEM_METRICS_EVERY_SECONDS,
            resume_logging=record.num_starts > 1,
            tracking_uri=tracking_uri,
        )
        monitor.start()
    except Exception as error:  # as above
        logger.warning("system metrics are not logged: %s", tracker_line(error))
        return None
    return monitor


def end_tags(record: RunRecord) -> dict[str, str]:
    """Return the tags that say how a run ended: why it ended before its last step, and what was wrong then."""
    tags = {STOPPED_EARLY_TAG: record.stopped_early, HEALTH_TAG: "; ".join(record.health.told().values())}
    return {name: value for name, value in tags.items() if value}


def metrics_of(rows: Iterable[Row]) -> "Iterator[Metric]":
    """Yield the metrics of rows, in their order, with the rows' timestamps."""
    from mlflow.entities import Metric

    return (Metric(key, value, row.timestamp_ms, row.step) for row in rows for key, value in row.metrics.items())


def log_metrics(client: "MlflowClient", run_id: str, metrics: "Iterable[Metric]") -> int:
    """Send metrics in batches, and return their number; MLflow does not store a metric that it has again."""
    metrics, count = iter(metrics), 0
    while batch := list(islice(metrics, _METRICS_PER_BATCH)):
        client.log_batch(run_id, metrics=batch)
        count += len(batch)
    return count


def ship(
    client: "MlflowClient",
    run_id: str,
    segments: Iterable[tuple[Path, list[Row]]],
    *,
    status: str = "RUNNING",
    tags: Mapping[str, str] = _NO_TAGS,
) -> int:
    """Send a journal's unshipped segments, and mark them as shipped.

    A row that is sent twice is stored once, because its timestamp is the same both times.

    Args:
        client: client of the tracker.
        run_id: id of the MLflow run.
        segments: file and rows of each segment, in order.
        status: status to give the MLflow run after all rows are sent.
        tags: tags to set on the MLflow run before that.

    Returns:
        The number of rows sent.
    """
    count = 0
    for segment, rows in segments:
        log_metrics(client, run_id, metrics_of(rows))
        mark_shipped(segment)
        count += len(rows)
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
    if status != "RUNNING":
        client.set_terminated(run_id, status=status)
    return count
