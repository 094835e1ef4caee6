"""What a search leaves for people: the best configuration, a table, and a page with plots."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from captioning.pages.search_page import trials_csv, write_search_page
from captioning.pages.trial_summary import TrialSummary
from cluster.config import TrainRun
from cluster.runs.identity import config_text
from cluster.search.scheduler import Search
from cluster.search.space.config import METRICS
from cluster.search.space.space import SearchSpace
from cluster.search.trials import SearchRecord, Trial, best_trial
from shards.storage.files import replace_file

BEST_NAME, TABLE_NAME, PAGE_NAME = "best.yaml", "trials.csv", "search.html"


def write_search_files(
    folder: Path,
    space: SearchSpace,
    search: Search,
    record: SearchRecord,
    *,
    best_run: Callable[[Trial], TrainRun],
) -> dict[str, str]:
    """Write the files into the search's folder; return their texts by name.

    Args:
        folder: of the search.
        space: of it.
        search: as far as it is.
        record: of the search.
        best_run: gives the run that trains a trial's point at full length.
    """
    trials, metric = search.trials, str(record.settings["metric"])
    mode = METRICS[metric]
    best = best_trial(trials, mode)
    texts = {BEST_NAME: config_text(best_run(best))} if best else {}
    searched = {parameter.key for parameter in space.searched}
    summaries = [_summary(trial, searched, record) for trial in trials]
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
        summary=_figures(trials, record, best),
        best_config=texts.get(BEST_NAME, ""),
        log_keys=[parameter.key for parameter in space.parameters if parameter.is_log],
    )
    return texts | {PAGE_NAME: page.read_text(encoding="utf-8")}


def _summary(trial: Trial, searched: Collection[str], record: SearchRecord) -> TrialSummary:
    return TrialSummary(
        name=trial.name,
        point={key: value for key, value in trial.point.items() if key in searched},
        curve=[(report.epoch, report.score) for report in trial.reports],
        reported=[(report.timestamp_ms - record.started_ms) / 1000 for report in trial.reports],
        state=trial.state,
        seconds=trial.seconds,
        reason=trial.reason,
    )


def _figures(trials: Sequence[Trial], record: SearchRecord, best: Trial | None) -> list[tuple[str, str]]:
    """Return what stands at the head of the page."""
    metric = str(record.settings["metric"])
    counts = [(state, sum(trial.state == state for trial in trials)) for state in ("finished", "stopped", "failed")]
    figures = [
        ("best", f"{best.name}, {best.best(METRICS[metric]):.4g}" if best else "none"),
        ("score", metric.replace("_", " ")),
        ("trials", f"{len(trials)} ({', '.join(f'{count} {state}' for state, count in counts)})"),
        ("epochs", f"{sum(trial.epochs for trial in trials)} of {len(trials) * record.settings['max_epochs']}"),
        ("time of the trials", f"{sum(trial.seconds for trial in trials):.0f} s"),
    ]
    return figures + [(key, text) for key, text in record.space.items()]
