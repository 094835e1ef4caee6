"""A search's own record, ``search.json``, and one file a trial: what was tried, how far it came, and how it ended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from cluster.config import TrackingConfig, TrainRun
from cluster.search.space.config import TuneRun
from cluster.search.space.sampling import FinishedTrial
from cluster.search.space.space import apply_point, space_differences
from cluster.settings import differences
from shards.storage.files import replace_file

RECORD_NAME, TRIALS_FOLDER = "search.json", "trials"

State = Literal["running", "finished", "stopped", "failed"]


class Report(NamedTuple):
    """One validation of a trial.

    Attributes:
        step: number of steps done.
        epoch: passes over the training split, rounded.
        score: by the search's metric.
        seconds: that the trial itself took since the report before.
        timestamp_ms: when it was heard, milliseconds since 1970.
    """

    step: int
    epoch: int
    score: float
    seconds: float
    timestamp_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One point of the space, trained."""

    number: int
    point: dict[str, Any]
    key: str
    """Finds its MLflow run again."""
    until: int
    """Epoch to which it trains, unless it is chosen to go on."""
    state: State = "running"
    reason: str = ""
    """Why it failed."""
    reports: tuple[Report, ...] = ()
    mlflow_run_id: str = ""

    @property
    def name(self) -> str:
        """Return the name of the trial's run and folder."""
        return f"trial-{self.number:04d}"

    @property
    def has_ended(self) -> bool:
        """Return whether nothing more is to come of it."""
        return self.state != "running"

    @property
    def epochs(self) -> int:
        """Return the epochs done, as far as is known."""
        return self.reports[-1].epoch if self.reports else 0

    @property
    def seconds(self) -> float:
        """Return the time that the trial itself took."""
        return sum(report.seconds for report in self.reports)

    def best(self, mode: Literal["min", "max"]) -> float | None:
        """Return the best score, None if it has none that is a number."""
        scores = [report.score for report in self.reports if report.score == report.score]  # not nan
        return (min if mode == "min" else max)(scores, default=None)

    def save(self, folder: Path) -> None:
        """Write the trial's file in the folder of its search, whole or not at all."""
        path = folder / TRIALS_FOLDER / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(asdict(self), indent=1).encode() + b"\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRecord:
    """What a search is."""

    name: str
    key: str
    """Finds its MLflow run again."""
    space: dict[str, str]
    settings: dict[str, Any]
    """Of the search, as far as they decide what is tried and which trial is stopped."""
    identity: dict[str, Any]
    """What all trials have in common and decides about their weights."""
    mlflow_run_id: str = ""
    num_starts: int = 0
    started_ms: int = 0
    """When the first start was, milliseconds since 1970."""
    is_finished: bool = False

    def save(self, folder: Path) -> None:
        """Write the record into the search's folder, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / RECORD_NAME, json.dumps(asdict(self), indent=1).encode() + b"\n")


def load_search(folder: Path) -> SearchRecord | None:
    """Read the record of a search; None if it has never started.

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
        ValueError: its file is damaged.
    """
    return _read(Trial, folder / TRIALS_FOLDER / f"trial-{number:04d}.json")


def _read(kind: type[Any], path: Path) -> Any:  # noqa: ANN401  of that type
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}); search under another --name") from None


def check_same_search(record: SearchRecord, now: SearchRecord) -> None:
    """Refuse to go on with a search of another space, other rules or another base.

    Raises:
        ValueError: something differs; the message names it.
    """
    changes = space_differences(record.space, now.space)
    changes += differences(record.settings, now.settings) + differences(record.identity, now.identity)
    if changes:
        raise ValueError(
            f"search {record.name} was started with another space or other settings ({'; '.join(changes)}); "
            "restore them, or choose another --name"
        )


def trial_run(run: TuneRun, trial: Trial, *, tracking_uri: str) -> TrainRun:
    """Return the training run of a trial: an ordinary one, in a folder below the search's.

    Args:
        run: the search.
        trial: of it.
        tracking_uri: of the search's tracker, which would else be looked for in the trial's own home folder.
    """
    checkpoints = run.storage.checkpoints
    base = run.base(
        name=trial.name,
        training=replace(run.training, num_epochs=float(run.search.max_epochs), keep_best=1, keep_last=1),
        validation=replace(run.validation, best_by=run.search.metric),  # type: ignore[arg-type]  one of the metrics
        storage=replace(
            run.storage,
            home=run.folder,
            checkpoints=checkpoints and f"{checkpoints.rstrip('/')}/{run.name}",
        ),
        tracking=TrackingConfig(uri=tracking_uri, experiment=run.tracking.experiment),
    )
    return apply_point(base, trial.point)


def tried(trials: Sequence[Trial], mode: Literal["min", "max"]) -> list[FinishedTrial]:
    """Return what a sampler is told of trials."""
    return [FinishedTrial(trial.number, trial.point, trial.best(mode) if trial.has_ended else None) for trial in trials]


def best_trial(trials: Sequence[Trial], mode: Literal["min", "max"]) -> Trial | None:
    """Return the trial with the best score, None if none has any; one that failed would do so again."""
    sign = 1 if mode == "min" else -1
    scored = [
        (sign * score, trial.number, trial)
        for trial in trials
        if trial.state != "failed" and (score := trial.best(mode)) is not None
    ]
    return min(scored)[2] if scored else None


def searched(point: Mapping[str, Any]) -> str:
    """Return a point as people read it."""
    return ", ".join(f"{key.rpartition('.')[2]} {_shown(value)}" for key, value in point.items())


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
