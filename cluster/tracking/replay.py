"""Replay: backfill an MLflow run from a run's journal, after the tracker was down or was restored from a backup."""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from cluster.errors import Refusal, one_line
from cluster.runs.journal import DamagedSegmentError, Row, list_segments, read_segment
from cluster.runs.record import RECORD_NAME, RunRecord, load_record, lock_run
from cluster.tracking.access import is_about_the_request, restore_remedy, tracker_line
from cluster.tracking.metric_logging import end_tags, log_metrics, metrics_of

logger = logging.getLogger(__name__)

_LOG_EVERY_ROWS = 100_000
_METRICS_PER_PAGE = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """Result of a replay."""

    run: str
    """Name of the run."""
    mlflow_run_id: str
    status: str
    """Status of the MLflow run afterwards."""
    rows: int
    """Number of intact rows in the journal; the tracker now has all of them."""
    steps: int
    """Number of steps done at the last of these rows."""
    num_lacking: int
    """Number of metric values that were missing from the tracker and were sent."""
    damaged: tuple[str, ...]
    """Skipped segments of the journal, each with the reason."""


def find_run(run: str, home: Path) -> Path:
    """Return the folder of a run.

    Args:
        run: name of a run in the home folder, or a run's folder.
        home: home folder.

    Raises:
        FileNotFoundError: there is no such run.
    """
    folders = (home / "training" / run, Path(run).absolute())
    for folder in folders:
        if (folder / RECORD_NAME).is_file():
            return folder
    raise FileNotFoundError(
        f"{run} is not a run: neither {folders[0]} nor {folders[1]} holds a {RECORD_NAME}; "
        "give a run's name and its --home, or its folder"
    )


def replay(folder: Path, client: MlflowClient) -> Replay:
    """Backfill metrics missing from the MLflow run, and end the MLflow run if the run is finished.

    What is missing is read from the tracker, not from the journal's record of shipped segments: a tracker restored from
    a backup may lack rows that were shipped.

    Args:
        folder: folder of the run.
        client: client of the tracker.

    Raises:
        BlockingIOError: the run has a live driver, which sends its rows itself.
        ValueError: the run has no MLflow run, or the tracker does not have it.
        ConnectionError: no tracker answers.
        RuntimeError: the tracker stopped accepting rows.
    """
    with lock_run(folder):
        record = load_record(folder)
        if not record or not record.mlflow_run_id:
            raise ValueError(f"{folder} has no MLflow run yet; captioning train creates it")
        tracked = _tracked_run(client, record)
        rows = _IntactRows(folder / "journal")
        try:
            missing = _missing(client, record.mlflow_run_id, metrics_of(rows))
            num_lacking = log_metrics(client, record.mlflow_run_id, missing)
            for name, value in end_tags(record).items():
                client.set_tag(record.mlflow_run_id, name, value)
            status = _end(client, tracked, rows.last) if record.is_finished else tracked.info.status
        except MlflowException as error:
            reason = one_line(error, with_kind=False)
            raise RuntimeError(
                f"the tracker stopped accepting rows of run {record.name} near row {rows.count} ({reason}); "
                "fix the tracker and run the same command again, which stores no row twice"
            ) from error
    return Replay(
        run=record.name,
        mlflow_run_id=record.mlflow_run_id,
        status=status,
        rows=rows.count,
        steps=rows.last.step if rows.last else 0,
        num_lacking=num_lacking,
        damaged=tuple(rows.damaged),
    )


class _IntactRows:
    """Iterable over the rows of a journal's intact segments, with one segment in memory at a time.

    Attributes:
        count: number of rows yielded so far.
        last: row with the highest step so far.
        damaged: skipped segments, each with the reason.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = 0
        self.last: Row | None = None
        self.damaged: list[str] = []

    def __iter__(self) -> Iterator[Row]:
        for path in list_segments(self._folder):
            try:
                rows = read_segment(path)
            except DamagedSegmentError as error:
                self.damaged.append(str(error))
                continue
            for row in rows:
                self.count += 1
                if self.last is None or row.step >= self.last.step:  # rows of late scores have earlier steps
                    self.last = row
                yield row
                if self.count % _LOG_EVERY_ROWS == 0:
                    logger.info("%d rows so far, step %d", self.count, row.step)


class _History:
    """Values of one metric in the tracker, ordered by timestamp, with one page in memory at a time."""

    def __init__(self, client: MlflowClient, run_id: str, key: str) -> None:
        self._store, self._run_id, self._key = client._tracking_client.store, run_id, key
        self._values = self._read()
        self._head = next(self._values, None)

    def has(self, metric: Metric) -> bool:
        """Return whether the tracker has a value; call it with values in the order of their timestamps."""
        while self._head and (self._head.timestamp, self._head.step) < (metric.timestamp, metric.step):
            self._head = next(self._values, None)
        head = self._head
        if head is None or (head.timestamp, head.step) != (metric.timestamp, metric.step):
            return False
        return head.value == metric.value or (math.isnan(head.value) and math.isnan(metric.value))

    def _read(self) -> Iterator[Metric]:
        # MlflowClient.get_metric_history has no pages: it would return the whole history at once.
        token = None
        while True:
            page = self._store.get_metric_history(
                self._run_id, self._key, max_results=_METRICS_PER_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return


def _missing(client: MlflowClient, run_id: str, metrics: Iterable[Metric]) -> Iterator[Metric]:
    """Yield the metrics that the tracker does not have, and those that are out of time order.

    Sending all metrics would be correct too, because MLflow does not store a value twice. But for a run with 400,000
    values, an SQLite tracker takes 7 seconds to reject 1,000 known values, and 0.1 seconds to store 1,000 new ones.
    """
    histories: dict[str, _History] = {}
    for metric in metrics:
        if metric.key not in histories:
            histories[metric.key] = _History(client, run_id, metric.key)
        if not histories[metric.key].has(metric):
            yield metric


def _tracked_run(client: MlflowClient, record: RunRecord) -> Run:
    address = client.tracking_uri
    try:
        run = client.get_run(record.mlflow_run_id)
    except MlflowException as error:
        if not is_about_the_request(error):
            raise ConnectionError(f"{tracker_line(error)} (at {address})") from error
        raise ValueError(
            f"MLflow run {record.mlflow_run_id} of run {record.name} is not in the tracker at {address}; "
            "pass the tracker that holds it with --tracking.uri"
        ) from None
    if run.info.lifecycle_stage != "active":
        raise Refusal(
            f"MLflow run {record.mlflow_run_id} of run {record.name} was deleted",
            restore_remedy("run", record.mlflow_run_id),
        )
    return run


def _end(client: MlflowClient, run: Run, last: Row | None) -> str:
    """Mark the MLflow run as finished, at the time of the run's last row, unless it is marked already."""
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED", end_time=last.timestamp_ms if last else None)
    return "FINISHED"
