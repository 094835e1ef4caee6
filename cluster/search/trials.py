"""Record of a search on disk: ``search.json``, and a file with point, scores and state for each trial."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cluster.config import TrackingConfig, TrainRun
from cluster.formats import read_record
from cluster.search.space.config import TuneRun, trial_training
from cluster.search.space.sampling import Observation
from cluster.search.space.space import apply_point, space_differences
from cluster.settings import differences
from shards.storage.files import replace_file

RECORD_NAME, TRIALS_FOLDER = "search.json", "trials"
FORMAT_VERSION = 1

TrialState = Literal["running", "finished", "stopped", "failed"]


class TrialReport(NamedTuple):
    """One validation of a trial.

    Attributes:
        step: number of training steps done.
        epoch: number of passes over the training split done, rounded.
        score: value of the search's metric.
        seconds: training time since the previous report, in seconds, measured by the trial.
        timestamp_ms: time at which the driver received the report, in milliseconds since 1970.
    """

    step: int
    epoch: int
    score: float
    seconds: float
    timestamp_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A trial: one point of the search space, and the state of its training."""

    number: int
    point: dict[str, Any]
    key: str
    """Unique tag of its MLflow run, by which a restarted driver finds the run."""
    until: int
    """Epoch of its current rung: the trial stops there, and continues only if it is promoted."""
    state: TrialState = "running"
    reason: str = ""
    """The error of a failed trial, or why a finished one stopped early, on one line."""
    reports: tuple[TrialReport, ...] = ()
    mlflow_run_id: str = ""

    @property
    def name(self) -> str:
        """Return the name of the trial's run and folder."""
        return f"trial-{self.number:04d}"

    @property
    def has_ended(self) -> bool:
        """Return whether it has stopped training; a stopped trial may still be promoted."""
        return self.state != "running"

    @property
    def epochs(self) -> int:
        """Return the number of epochs up to the last report."""
        return self.reports[-1].epoch if self.reports else 0

    @property
    def seconds(self) -> float:
        """Return the training time of all reports together, in seconds."""
        return sum(report.seconds for report in self.reports)

    def best(self, mode: Literal["min", "max"]) -> float | None:
        """Return the best score; None if there is none, nan aside."""
        scores = [report.score for report in self.reports if report.score == report.score]  # nan differs from itself
        return (min if mode == "min" else max)(scores, default=None)

    def save(self, folder: Path) -> None:
        """Write the trial's file into the folder of its search, atomically."""
        path = folder / TRIALS_FOLDER / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(asdict(self), indent=1).encode() + b"\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRecord:
    """The content of ``search.json``: the identity of a search, and the number of its starts."""

    name: str
    key: str
    """Unique tag of its MLflow run, by which a restarted driver finds the run."""
    space: dict[str, str]
    """The text of each parameter's distribution, by key."""
    settings: dict[str, Any]
    """The settings that determine which points are tried and which trials are promoted."""
    identity: dict[str, Any]
    """The settings and digests that determine the weights and are the same for all trials."""
    mlflow_run_id: str = ""
    num_starts: int = 0
    started_ms: int = 0
    """Time of the first start, in milliseconds since 1970."""
    format_version: int = FORMAT_VERSION
    is_finished: bool = False

    def save(self, folder: Path) -> None:
        """Write the record into the search's folder, atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / RECORD_NAME, json.dumps(asdict(self), indent=1).encode() + b"\n")


def load_search(folder: Path) -> SearchRecord | None:
    """Read the record of a search; return None if the search has never started.

    Raises:
        ValueError: the record is damaged.
    """
    path = folder / RECORD_NAME
    return _read(SearchRecord, path) if path.is_file() else None


def load_trials(folder: Path) -> list[Trial]:
    """Read the trials of a search, by number.

    Raises:
        ValueError: a trial's file is damaged.
    """
    return [_read(Trial, path) for path in sorted((folder / TRIALS_FOLDER).glob("trial-*.json"))]


def load_trial(folder: Path, number: int) -> Trial:
    """Read one trial of a search.

    Raises:
        ValueError: the trial's file is damaged.
    """
    return _read(Trial, folder / TRIALS_FOLDER / f"trial-{number:04d}.json")


def _read(kind: type[Any], path: Path) -> Any:  # noqa: ANN401  of that type
    return read_record(kind, path, newest=FORMAT_VERSION, remedy="search under another --name")


def check_same_search(record: SearchRecord, now: SearchRecord) -> None:
    """Check that a search with the same name has the same space, settings and base configuration.

    Args:
        record: the record on disk.
        now: the record of the search that is about to start.

    Raises:
        ValueError: something differs; the message lists the differences.
    """
    changes = space_differences(record.space, now.space)
    changes += differences(record.settings, now.settings) + differences(record.identity, now.identity)
    if changes:
        raise ValueError(
            f"search {record.name} was started with another space or other settings ({'; '.join(changes)}); "
            "restore them, or choose another --name"
        )


def trial_run(run: TuneRun, trial: Trial, *, tracking_uri: str) -> TrainRun:
    """Return the training run of a trial, an ordinary run in a folder below the search's folder.

    Args:
        run: the search.
        trial: one of its trials.
        tracking_uri: address of the search's tracker. The default database would be the wrong one: it is in a run's
            home folder, which for a trial is the search's folder.
    """
    checkpoints = run.storage.checkpoints
    base = run.base(
        name=trial.name,
        training=replace(trial_training(run.training, run.search.max_epochs), keep_best=1, keep_last=1),
        validation=replace(run.validation, best_by=run.search.metric),  # type: ignore[arg-type]  one of the metrics
        storage=replace(
            run.storage,
            home=run.folder,
            checkpoints=checkpoints and f"{checkpoints.rstrip('/')}/{run.name}",
        ),
        tracking=TrackingConfig(uri=tracking_uri, experiment=run.tracking.experiment),
    )
    return apply_point(base, trial.point)


def observations(trials: Sequence[Trial], mode: Literal["min", "max"]) -> list[Observation]:
    """Return the trials as a sampler observes them: a trial has a score once it has ended."""
    return [Observation(trial.number, trial.point, trial.best(mode) if trial.has_ended else None) for trial in trials]


def best_trial(trials: Sequence[Trial], mode: Literal["min", "max"]) -> Trial | None:
    """Return the trial with the best score, or None. Failed trials are left out: their runs would fail again."""
    sign = 1 if mode == "min" else -1
    scored = [
        (sign * score, trial.number, trial)
        for trial in trials
        if trial.state != "failed" and (score := trial.best(mode)) is not None
    ]
    return min(scored)[2] if scored else None


def point_text(point: Mapping[str, Any]) -> str:
    """Return a point on one line, such as ``learning_rate 0.00123, hidden_size 256``."""
    return ", ".join(f"{key.rpartition('.')[2]} {_value_text(value)}" for key, value in point.items())


def _value_text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
