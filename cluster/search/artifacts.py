"""The result files of a search: the best configuration, a table of trials, and a page with charts."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from captioning.pages.search_page import (
    SearchPage,
    Setting,
    duration,
    short_value,
    trials_csv,
    write_search_page,
)
from captioning.pages.trial_summary import TrialSummary
from cluster.config import TrainRun
from cluster.runs.identity import config_text
from cluster.search.importance import setting_importances
from cluster.search.scheduler import SearchScheduler
from cluster.search.space.config import METRIC_MODES
from cluster.search.space.space import SearchSpace
from cluster.search.trials import SearchRecord, Trial, best_trial
from cluster.tracking.pages import run_address
from shards.storage.files import replace_file

BEST_NAME, TABLE_NAME, PAGE_NAME = "best.yaml", "trials.csv", "search.html"
_METRIC_NAMES = {
    "validation_loss_nats": ("validation loss", "nats per word"),
    "validation_cider_d": ("validation CIDEr-D", ""),
}


def write_artifacts(
    folder: Path,
    space: SearchSpace,
    scheduler: SearchScheduler,
    record: SearchRecord,
    *,
    best_run: Callable[[Trial], TrainRun],
    tracking_uri: str = "",
) -> dict[str, str]:
    """Write the files of a search into its folder.

    Args:
        folder: the search's folder.
        space: the search space.
        scheduler: the search's trials so far.
        record: the search's record.
        best_run: returns the run that trains a trial's point at full length.
        tracking_uri: address of the tracker, for the page's links.

    Returns:
        The text of each file by its name; ``best.yaml`` is missing while no trial has a score.
    """
    trials = scheduler.trials
    mode = METRIC_MODES[str(record.settings["metric"])]
    best = best_trial(trials, mode)
    texts = {BEST_NAME: config_text(best_run(best))} if best else {}
    searched = {parameter.key for parameter in space.searched}
    summaries = [_trial_summary(trial, searched, record, tracking_uri) for trial in trials]
    texts[TABLE_NAME] = trials_csv(summaries, mode=mode)
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    page = folder / PAGE_NAME
    content = _page(folder, space, trials, record, best, tracking_uri)
    write_search_page(page, summaries, replace(content, best_config=texts.get(BEST_NAME, "")))
    return texts | {PAGE_NAME: page.read_text(encoding="utf-8")}


def _page(
    folder: Path, space: SearchSpace, trials: Sequence[Trial], record: SearchRecord, best: Trial | None, uri: str
) -> SearchPage:
    mode = METRIC_MODES[str(record.settings["metric"])]
    metric, unit = _METRIC_NAMES[str(record.settings["metric"])]
    aim = "The lower, the better." if mode == "min" else "The higher, the better."
    train = f"captioning train --config {shlex.quote(str(folder / BEST_NAME))}"
    address = run_address(uri, record.mlflow_run_id)
    shares = setting_importances(space, trials, mode)
    return SearchPage(
        title=record.name,
        metric=metric,
        unit=unit,
        mode=mode,
        lead=f"{len(trials)} trials, compared by their {metric}{f' ({unit})' if unit else ''}. {aim}",
        outcome=_outcome(trials, record, best),
        space=sorted(_settings(space, best, shares or {}), key=lambda one: -(one.importance or 0.0)),
        commands=[("Train the best settings at full length", train)] if best else [],
        links=[("This search in MLflow", address)] if address else [],
        log_keys=[parameter.key for parameter in space.parameters if parameter.is_log],
    )


def _settings(space: SearchSpace, best: Trial | None, shares: Mapping[str, float]) -> list[Setting]:
    point = best.point if best else {}
    return [
        Setting(
            key=parameter.key,
            searched=str(parameter),
            best=short_value(point[parameter.key]) if parameter.key in point else "",
            importance=shares.get(parameter.key),
        )
        for parameter in space.parameters
    ]


def _trial_summary(trial: Trial, searched: Collection[str], record: SearchRecord, uri: str) -> TrialSummary:
    return TrialSummary(
        name=trial.name,
        point={key: value for key, value in trial.point.items() if key in searched},
        curve=[(report.epoch, report.score) for report in trial.reports],
        reported=[(report.timestamp_ms - record.started_ms) / 1000 for report in trial.reports],
        state=trial.state,
        seconds=trial.seconds,
        reason=trial.reason,
        link=run_address(uri, trial.mlflow_run_id),
    )


def _outcome(trials: Sequence[Trial], record: SearchRecord, best: Trial | None) -> list[tuple[str, str]]:
    """Return the name and value of each figure at the top of the page."""
    name = str(record.settings["metric"])
    metric, unit = _METRIC_NAMES[name]
    states = [(state, sum(trial.state == state for trial in trials)) for state in ("finished", "stopped", "failed")]
    return [
        (f"best {metric}", f"{best.best(METRIC_MODES[name]):.4g} {unit}".rstrip() if best else "none"),
        ("best trial", best.name if best else "none"),
        ("trials", ", ".join(f"{count} {state}" for state, count in states if count) or f"{len(trials)}"),
        ("epochs", f"{sum(trial.epochs for trial in trials)} of {len(trials) * record.settings['max_epochs']}"),
        ("time of the trials", duration(sum(trial.seconds for trial in trials))),
    ]
