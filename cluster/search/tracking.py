"""A search in MLflow: one parent run, one child a trial, followed from the driver without ever being waited for."""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Metric

from cluster.errors import one_line
from cluster.runs.record import load_record
from cluster.search.scheduler import Search
from cluster.search.space.config import METRICS
from cluster.search.trials import SearchRecord, State, Trial, searched
from cluster.tracking.client import create_run, set_tags
from cluster.tracking.shipping import log_metrics, ship

logger = logging.getLogger(__name__)

_FOLLOW_EVERY_SECONDS, _BEGIN_SECONDS = 5.0, 5.0
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
_PARENT_TAG, _NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"


class SearchTracker:
    """Gives MLflow what it lacks of a search, every few seconds, in a thread of its own.

    Args:
        reach: gives the tracker's client and the experiment's id; asked each time, so that a tracker that is down is
            noticed at once, and may come back.
        search: to follow.
        record: of the search; names the parent run.
        folder: of the search, with its trials' runs.
        dataset: name, source and digest of the shard set.
    """

    def __init__(
        self,
        reach: Callable[[], tuple[MlflowClient, str]],
        search: Search,
        record: SearchRecord,
        *,
        folder: Path,
        dataset: tuple[str, str, str],
    ) -> None:
        self._reach, self._search, self._record = reach, search, record
        self._folder, self._dataset = folder, dataset
        self._told: dict[int, tuple[State, int]] = {}
        self._num_scores, self._is_told_running = 0, False
        self._tracking, self._creating = threading.Lock(), threading.Lock()
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="captioning-search-tracker")

    @property
    def _mode(self) -> Literal["min", "max"]:
        return METRICS[self._record.settings["metric"]]

    def start(self) -> None:
        """Follow the search from now on."""
        self._thread.start()

    def begin(self, trial: Trial, parameters: Mapping[str, Any]) -> str:
        """Return the id of a trial's MLflow run, made if absent; empty if the tracker does not tell it soon.

        Args:
            trial: that is about to start; its checkpoints name the run.
            parameters: of the run.
        """
        made: list[str] = []

        def create(client: MlflowClient, experiment: str) -> None:
            made.append(self._create_child(client, experiment, trial, parameters))

        # Not under the lock of what follows the search, which waits for a search that waits for this.
        target = lambda: self._try(create, self._creating)  # noqa: E731
        thread = threading.Thread(target=target, daemon=True, name="captioning-search-child")
        thread.start()
        thread.join(_BEGIN_SECONDS)
        return made[0] if made else ""

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
        def end_all(client: MlflowClient, _: str) -> None:
            self._end_all(client, status)

        def track(client: MlflowClient, experiment: str) -> None:
            self._told.clear()  # a run under Ray Train that was stopped has said so itself, after it was noted here
            self._track(client, experiment, artifacts)
            if best := self._search.progress().best:
                found = f"best: {best.name} with {best.best(self._mode):.4g}, {searched(best.point)}"
                set_tags(client, self._record.mlflow_run_id, {_NOTE_TAG: found})

        if status == "KILLED":  # first of all: whoever ends this process does not wait
            self._try(end_all, self._tracking)
        if self._try(track, self._tracking) and self._try(end_all, self._tracking):
            done.set()

    def _end_all(self, client: MlflowClient, status: str) -> None:
        client.set_terminated(self._record.mlflow_run_id, status=status)
        for trial in self._search.trials:
            if trial.mlflow_run_id and not trial.has_ended:
                client.set_terminated(trial.mlflow_run_id, status="KILLED")

    def _follow(self) -> None:
        while not self._is_ending.wait(_FOLLOW_EVERY_SECONDS):
            self._try(self._track, self._tracking)

    def _try(self, track: Callable[[MlflowClient, str], None], lock: threading.Lock) -> bool:
        with lock:
            try:
                track(*self._reach())
            except Exception as error:  # a broken tracker raises whatever its database or server does
                logger.warning(
                    "the tracker does not take the search, which goes on: %s", one_line(error, with_kind=False)
                )
                return False
        return True

    def _track(self, client: MlflowClient, experiment: str, artifacts: Mapping[str, str] | None = None) -> None:
        run_id = self._record.mlflow_run_id
        if not self._is_told_running and not self._is_ending.is_set():
            client.update_run(run_id, status="RUNNING")
            self._is_told_running = True
        for trial in self._search.trials:
            self._track_trial(client, experiment, trial)
        scores = list(self._scores())
        log_metrics(client, run_id, scores[self._num_scores :])
        self._num_scores = len(scores)
        for name, text in (artifacts or {}).items():
            client.log_text(run_id, text, name)

    def _track_trial(self, client: MlflowClient, experiment: str, trial: Trial) -> None:
        now: tuple[State, int] = (trial.state, trial.until)
        before = self._told.get(trial.number)
        if trial.has_ended and before == now:
            return
        folder, status = self._folder / "training" / trial.name, _STATUS[trial.state]
        record = load_record(folder)
        if record is None:
            return
        run_id = trial.mlflow_run_id
        if not run_id:
            with self._creating:
                run_id = self._create_child(client, experiment, trial, record.identity)
            self._search.name_run(trial.number, run_id)
        if not self._is_known(client, run_id, trial):
            if not trial.has_ended and before != now and not self._is_ending.is_set():
                client.update_run(run_id, status=status)
            set_tags(client, run_id, {"trial.state": trial.state, "trial.reason": trial.reason})
            ship(client, run_id, folder / "journal", status=status)
        self._told[trial.number] = now

    def _is_known(self, client: MlflowClient, run_id: str, trial: Trial) -> bool:
        """Return whether the tracker has all of a trial that ended before this start; its end is not moved then."""
        if trial.number in self._told or not trial.has_ended:
            return False
        known = client.get_run(run_id)
        return (known.info.status, known.data.tags.get("trial.state")) == (_STATUS[trial.state], trial.state)

    def _create_child(self, client: MlflowClient, experiment: str, trial: Trial, parameters: Mapping[str, Any]) -> str:
        tags = {
            _PARENT_TAG: self._record.mlflow_run_id,
            _NOTE_TAG: searched(trial.point),
            "run_folder": str(self._folder / "training" / trial.name),
        }
        return create_run(
            client,
            experiment,
            key=trial.key,
            name=trial.name,
            parameters=parameters,
            tags=tags,
            dataset=self._dataset,
        )

    def _scores(self) -> Sequence[Metric]:
        """Return the best score so far over the epochs spent; the same again for the same reports."""
        metric, pick = self._record.settings["metric"], min if self._mode == "min" else max
        reports = sorted(
            (report.timestamp_ms, trial.number, report, before)
            for trial in self._search.trials
            for report, before in zip(trial.reports, (None, *trial.reports), strict=False)
        )
        best, spent, scores = None, 0, []
        for timestamp_ms, _, report, before in reports:
            spent += report.epoch - (before.epoch if before else 0)
            if math.isnan(report.score):
                continue
            best = report.score if best is None else pick(best, report.score)
            scores.append(Metric(f"best_{metric}", best, timestamp_ms, spent))
        return scores
