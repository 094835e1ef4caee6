"""The result files of a search: the best configuration, a table of trials, and a page with charts."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from captioning.pages.search_page import trials_csv, write_search_page
from captioning.pages.trial_summary import TrialSummary
from cluster.config import TrainRun
from cluster.runs.identity import config_text
from cluster.search.scheduler import SearchScheduler
from cluster.search.space.config import METRIC_MODES
from cluster.search.space.space import SearchSpace
from cluster.search.trials import SearchRecord, Trial, best_trial
from shards.storage.files import replace_file

BEST_NAME, TABLE_NAME, PAGE_NAME = "best.yaml", "trials.csv", "search.html"


def write_artifacts(
    folder: Path,
    space: SearchSpace,
    scheduler: SearchScheduler,
    record: SearchRecord,
    *,
    best_run: Callable[[Trial], TrainRun],
) -> dict[str, str]:
    """Write the files of a search into its folder.

    Args:
        folder: the search's folder.
        space: the search space.
        scheduler: the search's trials so far.
        record: the search's record.
        best_run: returns the run that trains a trial's point at full length.

    Returns:
        The text of each file by its name; ``best.yaml`` is missing while no trial has a score.
    """
    trials, metric = scheduler.trials, str(record.settings["metric"])
    mode = METRIC_MODES[metric]
    best = best_trial(trials, mode)
    texts = {BEST_NAME: config_text(best_run(best))} if best else {}
    searched = {parameter.key for parameter in space.searched}
    summaries = [_trial_summary(trial, searched, record) for trial in trials]
    texts[TABLE_NAME] = trials_csv(summaries, mode=mode)
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    page = folder / PAGE_NAME
    write_search_page(
        page,
        summaries,
        title=f"Search {record.name}",
        metric=metric,
        mode=mode,
        summary=_search_summary(trials, record, best),
        best_config=texts.get(BEST_NAME, ""),
        log_keys=[parameter.key for parameter in space.parameters if parameter.is_log],
    )
    return texts | {PAGE_NAME: page.read_text(encoding="utf-8")}


def _trial_summary(trial: Trial, searched: Collection[str], record: SearchRecord) -> TrialSummary:
    return TrialSummary(
        name=trial.name,
        point={key: value for key, value in trial.point.items() if key in searched},
        curve=[(report.epoch, report.score) for report in trial.reports],
        reported=[(report.timestamp_ms - record.started_ms) / 1000 for report in trial.reports],
        state=trial.state,
        seconds=trial.seconds,
        reason=trial.reason,
    )


def _search_summary(trials: Sequence[Trial], record: SearchRecord, best: Trial | None) -> list[tuple[str, str]]:
    """Return the name and value of each figure at the top of the page."""
    metric = str(record.settings["metric"])
    counts = [(state, sum(trial.state == state for trial in trials)) for state in ("finished", "stopped", "failed")]
    figures = [
        ("best", f"{best.name}, {best.best(METRIC_MODES[metric]):.4g}" if best else "none"),
        ("score", metric.replace("_", " ")),
        ("trials", f"{len(trials)} ({', '.join(f'{count} {state}' for state, count in counts)})"),
        ("epochs", f"{sum(trial.epochs for trial in trials)} of {len(trials) * record.settings['max_epochs']}"),
        ("time of the trials", f"{sum(trial.seconds for trial in trials):.0f} s"),
    ]
    return figures + [(key, text) for key, text in record.space.items()]
