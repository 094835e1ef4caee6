"""A search in MLflow: one parent run, one child a trial, followed from the driver without ever being waited for."""

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from cluster.runs import RunRecord, load_record
from cluster.search_config import METRICS
from cluster.searching import Search
from cluster.tracking import create_run, log_metrics, set_tags, ship
from cluster.trials import SearchRecord, Trial, searched

logger = logging.getLogger(__name__)

_FOLLOW_EVERY_SECONDS = 5.0
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
_PARENT_TAG, _NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"


class SearchTracker:
    """Gives MLflow what it lacks of a search, every few seconds, in a thread of its own.

    Args:
        client: of the tracker.
        experiment: its id.
        search: to follow.
        record: of the search; names the parent run.
        folder: of the search, with its trials' runs.
        dataset: name, source and digest of the shard set.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment: str,
        search: Search,
        record: SearchRecord,
        *,
        folder: Path,
        dataset: tuple[str, str, str],
    ) -> None:
        self._client, self._experiment, self._search, self._record = client, experiment, search, record
        self._folder, self._dataset = folder, dataset
        self._statuses: dict[int, str] = {}
        self._num_scores = 0
        self._tracking = threading.Lock()
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="captioning-search-tracker")

    def start(self) -> None:
        """Follow the search from now on."""
        self._thread.start()

    def finish(self, status: str, artifacts: Mapping[str, str], *, seconds: float) -> bool:
        """Send what is left with the search's files, and end the parent run; return whether the tracker has all.

        Args:
            status: FINISHED, FAILED or KILLED.
            artifacts: texts by file name.
            seconds: that may be spent.
        """
        self._is_ending.set()
        done = threading.Event()
        last = threading.Thread(target=self._track_last, args=(status, artifacts, done), daemon=True)
        last.start()
        last.join(seconds)
        return done.is_set()

    def _track_last(self, status: str, artifacts: Mapping[str, str], done: threading.Event) -> None:
        if status == "KILLED":  # first of all: whoever ends this process does not wait
            self._try(lambda: self._end_all(status))
        if self._try(lambda: self._track(artifacts)) and self._try(lambda: self._end_all(status)):
            done.set()

    def _end_all(self, status: str) -> None:
        self._client.set_terminated(self._record.mlflow_run_id, status=status)
        for trial in self._search.trials:
            if trial.mlflow_run_id and not trial.has_ended:
                self._client.set_terminated(trial.mlflow_run_id, status="KILLED")

    def _follow(self) -> None:
        while not self._is_ending.wait(_FOLLOW_EVERY_SECONDS):
            self._try(self._track)

    def _try(self, track: Any) -> bool:  # noqa: ANN401  any call
        with self._tracking:
            try:
                track()
            except Exception as error:  # a broken tracker raises whatever its database or server does
                logger.warning("the tracker does not take the search, which goes on: %s", str(error).splitlines()[0])
                return False
        return True

    def _track(self, artifacts: Mapping[str, str] | None = None) -> None:
        for trial in self._search.trials:
            self._track_trial(trial)
        scores = list(self._scores())
        log_metrics(self._client, self._record.mlflow_run_id, scores[self._num_scores :])
        self._num_scores = len(scores)
        for name, text in (artifacts or {}).items():
            self._client.log_text(self._record.mlflow_run_id, text, name)

    def _track_trial(self, trial: Trial) -> None:
        if self._statuses.get(trial.number) in ("FINISHED", "FAILED"):
            return
        record = load_record(self._folder / "training" / trial.name)
        if record is None:
            return
        run_id = trial.mlflow_run_id or self._create_child(trial, record)
        status = _STATUS[trial.state]
        if status != self._statuses.get(trial.number):
            self._client.update_run(run_id, status=status) if status == "RUNNING" else None
            set_tags(self._client, run_id, {"trial.state": trial.state, "trial.reason": trial.reason})
        ship(self._client, run_id, self._folder / "training" / trial.name / "journal")
        if status != "RUNNING":
            self._client.set_terminated(run_id, status=status)
        self._statuses[trial.number] = status

    def _create_child(self, trial: Trial, record: RunRecord) -> str:
        run_id = create_run(
            self._client,
            self._experiment,
            key=trial.key,
            name=trial.name,
            parameters=record.identity,
            tags={},
            dataset=self._dataset,
        )
        tags = {_PARENT_TAG: self._record.mlflow_run_id, _NOTE_TAG: searched(trial.point)}
        set_tags(self._client, run_id, tags | {"run_folder": str(self._folder / "training" / trial.name)})
        self._search.name_run(trial.number, run_id)
        return run_id

    def _scores(self) -> Sequence[Metric]:
        """Return the best score so far over the epochs spent; the same again for the same reports."""
        metric = self._record.settings["metric"]
        pick = min if METRICS[metric] == "min" else max
        reports = sorted(
            (report.timestamp_ms, trial.number, report, before)
            for trial in self._search.trials
            for report, before in zip(trial.reports, (None, *trial.reports), strict=False)
        )
        best, spent, scores = None, 0, []
        for timestamp_ms, _, report, before in reports:
            spent += report.epoch - (before.epoch if before else 0)
            best = report.score if best is None else pick(best, report.score)
            scores.append(Metric(f"best_{metric}", best, timestamp_ms, spent))
        return scores
