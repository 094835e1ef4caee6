"""The page of a search: its trials as an HTML page with charts, and as a CSV table."""

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

from captioning.pages.html import write_page
from captioning.pages.search_charts import search_charts
from captioning.pages.trial_summary import Mode, TrialSummary, Value, parameter_keys, rank_trials, value_text


def write_search_page(
    path: Path,
    trials: Sequence[TrialSummary],
    *,
    title: str,
    metric: str,
    mode: Mode,
    summary: Sequence[tuple[str, str]] = (),
    best_config: str = "",
    log_keys: Collection[str] = (),
) -> None:
    """Write a page of charts over all trials, a table of the trials, and the best configuration.

    All text is escaped, and equal inputs give equal bytes.

    Args:
        path: HTML file to write, replaced atomically if it exists; its folder is created if absent.
        trials: trials in the order of their numbers.
        title: heading of the page.
        metric: name of the score, with its unit.
        mode: whether a lower (min) or a higher (max) score is better.
        summary: name and value of each figure at the top.
        best_config: configuration of the best trial as YAML, shown in a section that is closed at first; empty if there
            is none.
        log_keys: keys of the parameters with a logarithmic scale.
    """
    keys = parameter_keys(trials)
    values = {
        "title": title,
        "summary": summary,
        "charts": search_charts(trials, metric=metric, mode=mode, log_keys=log_keys),
        "metric": metric,
        "better": "lower is better" if mode == "min" else "higher is better",
        "keys": keys,
        "rows": [_row(trial, rank, keys, mode) for rank, trial in rank_trials(trials, mode)],
        "has_reasons": any(trial.reason for trial in trials),
        "best_config": best_config,
    }
    write_page(path, "search.html.jinja", values)


def trials_csv(trials: Sequence[TrialSummary], *, mode: Mode) -> str:
    """Return the table of trials as CSV: a line for each trial, best first, with unrounded numbers.

    Unknown values are empty. Values of parameters are in JSON, except that text has no quotes.
    """
    keys = parameter_keys(trials)
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["rank", "name", "state", "epochs", "best_score", "seconds", *keys, "reason"])
    for rank, trial in rank_trials(trials, mode):
        best = trial.best(mode)
        known = [rank or "", trial.name, trial.state, trial.num_epochs, "" if best is None else best, trial.seconds]
        values = [value_text(trial.point[key]) if key in trial.point else "" for key in keys]
        writer.writerow([*known, *values, trial.reason])
    return content.getvalue()


def _row(trial: TrialSummary, rank: int | None, keys: Sequence[str], mode: Mode) -> dict[str, object]:
    best = trial.best(mode)
    return {
        "rank": rank or "",
        "name": trial.name,
        "state": trial.state,
        "epochs": f"{trial.num_epochs:g}",
        "best": "" if best is None else f"{best:#.4g}",  # keeps trailing zeros: four digits in each row
        "time": _duration(trial.seconds),
        "values": [_short_value(trial.point[key]) if key in trial.point else "" for key in keys],
        "reason": trial.reason,
    }


def _short_value(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value_text(value)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.1f} min" if hours < 1 else f"{hours:.1f} h"
