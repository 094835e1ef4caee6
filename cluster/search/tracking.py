"""A search in MLflow: a parent run and a child run for each trial, kept up to date by a thread of the driver.

The search never waits for the tracker, with two exceptions, each limited in time: a trial's MLflow run is created
before the trial starts, because its checkpoints contain the run's id; and at the end, the remaining records are sent.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric

from cluster.runs.journal import unshipped
from cluster.runs.record import load_record
from cluster.search.scheduler import SearchScheduler
from cluster.search.space.config import METRIC_MODES
from cluster.search.trials import SearchRecord, Trial, TrialState, point_text
from cluster.tracking.access import tracker_line
from cluster.tracking.client import create_run, set_tags
from cluster.tracking.metric_logging import end_tags, log_metrics, ship

logger = logging.getLogger(__name__)

_SYNC_EVERY_SECONDS, _CREATE_SECONDS = 5.0, 5.0
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
_PARENT_TAG, _NOTE_TAG, _STATE_TAG = "mlflow.parentRunId", "mlflow.note.content", "trial.state"
_RUNS_PER_PAGE = 1000


class SearchTracker:
    """Sends the new records of a search to MLflow every few seconds, in its own thread.

    Args:
        connect: function that returns the tracker's client and the experiment's id; called before each transfer, so
            that a tracker that is down is noticed at once, and used again when it is back.
        scheduler: the search's scheduler.
        record: the search's record, which names the parent run.
        folder: the search's folder, which holds the runs of the trials.
        datasets: data that the trials read.
    """

    def __init__(
        self,
        connect: Callable[[], tuple[MlflowClient, str]],
        scheduler: SearchScheduler,
        record: SearchRecord,
        *,
        folder: Path,
        datasets: Sequence[DatasetInput],
    ) -> None:
        self._connect, self._scheduler, self._record = connect, scheduler, record
        self._folder, self._datasets = folder, datasets
        self._sent: dict[int, tuple[TrialState, int]] = {}
        self._ended: Mapping[str, tuple[str, str | None]] | None = None
        self._num_scores, self._is_marked_running = 0, False
        self._sync_lock, self._create_lock = threading.Lock(), threading.Lock()
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._sync_often, daemon=True, name="captioning-search-tracker")

    @property
    def _mode(self) -> Literal["min", "max"]:
        return METRIC_MODES[self._record.settings["metric"]]

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def create_trial_run(self, trial: Trial, parameters: Mapping[str, Any]) -> str:
        """Create the MLflow run of a trial, if it does not exist.

        Args:
            trial: a trial that is about to start.
            parameters: the parameters of the MLflow run.

        Returns:
            The id of the MLflow run; empty if the tracker does not answer in time.
        """
        created: list[str] = []

        def create(client: MlflowClient, experiment: str) -> None:
            created.append(self._create_child(client, experiment, trial, parameters))

        # Not under the sync lock: the caller holds the scheduler's lock, for which a sync may be waiting (a deadlock).
        target = lambda: self._try(create, self._create_lock)  # noqa: E731
        thread = threading.Thread(target=target, daemon=True, name="captioning-search-child")
        thread.start()
        thread.join(_CREATE_SECONDS)
        return created[0] if created else ""

    def finish(self, status: str, artifacts: Mapping[str, str], *, seconds: float) -> bool:
        """Send the remaining records and the artifacts, and end the parent run.

        Args:
            status: final status of the parent run: FINISHED, FAILED or KILLED.
            artifacts: text of each file by its name.
            seconds: longest time to wait, in seconds.

        Returns:
            Whether the tracker has everything.
        """
        self._is_ending.set()
        done = threading.Event()
        last = threading.Thread(target=self._sync_and_end, args=(status, artifacts, done), daemon=True)
        last.start()
        last.join(seconds)
        return done.is_set()

    def _sync_and_end(self, status: str, artifacts: Mapping[str, str], done: threading.Event) -> None:
        def end_all(client: MlflowClient, _: str) -> None:
            self._end_all(client, status)

        def sync(client: MlflowClient, experiment: str) -> None:
            # A stopped run under Ray Train sets its own status, maybe after this tracker has set it: set all again.
            self._sent.clear()
            self._ended = None
            self._sync(client, experiment, artifacts)
            if best := self._scheduler.progress().best:
                note = f"best: {best.name} with {best.best(self._mode):.4g}, {point_text(best.point)}"
                set_tags(client, self._record.mlflow_run_id, {_NOTE_TAG: note})

        if status == "KILLED":  # statuses first: this process may be killed before the remaining records are sent
            self._try(end_all, self._sync_lock)
        if self._try(sync, self._sync_lock) and self._try(end_all, self._sync_lock):
            done.set()

    def _end_all(self, client: MlflowClient, status: str) -> None:
        client.set_terminated(self._record.mlflow_run_id, status=status)
        for trial in self._scheduler.trials:
            if trial.mlflow_run_id and not trial.has_ended:
                client.set_terminated(trial.mlflow_run_id, status="KILLED")

    def _sync_often(self) -> None:
        while not self._is_ending.wait(_SYNC_EVERY_SECONDS):
            self._try(self._sync, self._sync_lock)

    def _try(self, send: Callable[[MlflowClient, str], None], lock: threading.Lock) -> bool:
        """Call ``send`` with the tracker's client and experiment; return whether it succeeded."""
        with lock:
            try:
                send(*self._connect())
            except Exception as error:  # which type depends on the tracker's database or server
                logger.warning("the tracker does not accept records; the search continues: %s", tracker_line(error))
                return False
        return True

    def _sync(self, client: MlflowClient, experiment: str, artifacts: Mapping[str, str] | None = None) -> None:
        run_id = self._record.mlflow_run_id
        if not self._is_marked_running and not self._is_ending.is_set():
            client.update_run(run_id, status="RUNNING")
            self._is_marked_running = True
        for trial in self._scheduler.trials:
            self._sync_trial(client, experiment, trial)
        scores = list(self._scores())
        log_metrics(client, run_id, scores[self._num_scores :])
        self._num_scores = len(scores)
        for name, text in (artifacts or {}).items():
            client.log_text(run_id, text, name)

    def _sync_trial(self, client: MlflowClient, experiment: str, trial: Trial) -> None:
        now: tuple[TrialState, int] = (trial.state, trial.until)
        before = self._sent.get(trial.number)
        if trial.has_ended and before == now:
            return
        folder, status = self._folder / "training" / trial.name, _STATUS[trial.state]
        record = load_record(folder)
        if record is None:
            return
        run_id = trial.mlflow_run_id
        if not run_id:
            with self._create_lock:
                run_id = self._create_child(client, experiment, trial, record.identity)
            self._scheduler.set_mlflow_run(trial.number, run_id)
        if not self._has_ended_run(client, experiment, run_id, trial):
            if not trial.has_ended and before != now and not self._is_ending.is_set():
                client.update_run(run_id, status=status)
            set_tags(client, run_id, {_STATE_TAG: trial.state, "trial.reason": trial.reason})
            ship(client, run_id, unshipped(folder / "journal"), status=status, tags=end_tags(record))
        self._sent[trial.number] = now

    def _has_ended_run(self, client: MlflowClient, experiment: str, run_id: str, trial: Trial) -> bool:
        """Return whether an earlier start has ended a trial's MLflow run; ending it again would change its end time."""
        if trial.number in self._sent or not trial.has_ended:
            return False
        if self._ended is None:  # all at once: one request per trial takes minutes for thousands of trials
            self._ended = self._ended_runs(client, experiment)
        return self._ended.get(run_id) == (_STATUS[trial.state], trial.state)

    def _ended_runs(self, client: MlflowClient, experiment: str) -> dict[str, tuple[str, str | None]]:
        """Return the status and the tagged state of the trials' MLflow runs that have ended, by the run's id."""
        wanted = f"tags.`{_PARENT_TAG}` = '{self._record.mlflow_run_id}' and attributes.status != 'RUNNING'"
        found, token = {}, None
        while True:
            page = client.search_runs([experiment], wanted, max_results=_RUNS_PER_PAGE, page_token=token)
            found |= {run.info.run_id: (run.info.status, run.data.tags.get(_STATE_TAG)) for run in page}
            if not (token := page.token):
                return found

    def _create_child(self, client: MlflowClient, experiment: str, trial: Trial, parameters: Mapping[str, Any]) -> str:
        tags = {
            _PARENT_TAG: self._record.mlflow_run_id,
            "run_folder": str(self._folder / "training" / trial.name),
        }
        return create_run(
            client,
            experiment,
            key=trial.key,
            name=trial.name,
            parameters=parameters,
            tags=tags,
            datasets=self._datasets,
            note=point_text(trial.point),
        )

    def _scores(self) -> Sequence[Metric]:
        """Return the curve of the best score so far over the epochs of all trials; new reports only append to it."""
        metric, pick = self._record.settings["metric"], min if self._mode == "min" else max
        reports = sorted(
            (report.timestamp_ms, trial.number, report, before)
            for trial in self._scheduler.trials
            for report, before in zip(trial.reports, (None, *trial.reports), strict=False)
        )
        best, num_epochs, scores = None, 0, []
        for timestamp_ms, _, report, before in reports:
            num_epochs += report.epoch - (before.epoch if before else 0)
            if math.isnan(report.score):
                continue
            best = report.score if best is None else pick(best, report.score)
            scores.append(Metric(f"best_{metric}", best, timestamp_ms, num_epochs))
        return scores
