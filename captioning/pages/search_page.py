"""The page of a search: its trials as an HTML page with charts, and as a CSV table."""

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from captioning.pages.charts import chart_values
from captioning.pages.html import write_page
from captioning.pages.parallel_coordinates import trial_lines
from captioning.pages.search_charts import search_charts
from captioning.pages.trial_summary import Mode, TrialSummary, Value, parameter_keys, rank_trials, value_text


class Setting(NamedTuple):
    """A setting of the search space.

    Attributes:
        key: name of the setting.
        searched: values that the search tries, as text.
        best: value of the best trial, as text; empty without one.
        importance: share of the differences between scores that the setting explains; None if unknown.
    """

    key: str
    searched: str
    best: str = ""
    importance: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPage:
    """The content of a search's page, beside its trials."""

    title: str
    metric: str
    """Name of the score, such as ``validation loss``."""
    mode: Mode
    """Whether a lower (min) or a higher (max) score is better."""
    unit: str = ""
    """Unit of the score, such as ``nats per word``."""
    lead: str = ""
    """Sentence below the heading."""
    outcome: Sequence[tuple[str, str]] = ()
    """Name and value of each figure at the top."""
    space: Sequence[Setting] = ()
    """Settings of the search, the most important first."""
    commands: Sequence[tuple[str, str]] = ()
    """What each command does, and the command."""
    links: Sequence[tuple[str, str]] = ()
    """Text and address of each link."""
    best_config: str = ""
    """Configuration of the best trial as YAML; empty if there is none."""
    log_keys: Collection[str] = ()
    """Keys of the settings with a logarithmic scale."""


def write_search_page(path: Path, trials: Sequence[TrialSummary], page: SearchPage) -> None:
    """Write a page of charts over all trials, the search space, a table of the trials, and the best configuration.

    All text is escaped, and equal inputs give equal bytes.

    Args:
        path: HTML file to write, replaced atomically if it exists; its folder is created if absent.
        trials: trials in the order of their numbers.
        page: the rest of the content.
    """
    keys = parameter_keys(trials)
    ranked = rank_trials(trials, page.mode)
    scored = [trial for rank, trial in ranked if rank]
    charts = search_charts(trials, metric=page.metric, unit=page.unit, mode=page.mode)
    values = {
        "title": page.title,
        "kicker": "Hyperparameter search",
        "lead": page.lead,
        "summary": page.outcome,
        "charts": [chart_values(chart) for chart in charts],
        "lines": trial_lines(scored, metric=page.metric, mode=page.mode, log_keys=page.log_keys),
        "metric": page.metric,
        "unit": page.unit,
        "better": "lower is better" if page.mode == "min" else "higher is better",
        "space": page.space,
        "keys": keys,
        "rows": [_row(trial, rank, keys, page.mode) for rank, trial in ranked],
        "has_reasons": any(trial.reason for trial in trials),
        "best_config": page.best_config,
        "commands": page.commands,
        "links": [(text, address) for text, address in page.links if _is_web(address)],
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


def short_value(value: Value) -> str:
    """Return the text of a value; a number has four digits."""
    return f"{value:.4g}" if isinstance(value, float) else value_text(value)


def _row(trial: TrialSummary, rank: int | None, keys: Sequence[str], mode: Mode) -> dict[str, object]:
    best = trial.best(mode)
    return {
        "rank": rank or "",
        "name": trial.name,
        "state": trial.state,
        "epochs": f"{trial.num_epochs:g}",
        "best": "" if best is None else f"{best:#.4g}",  # keeps trailing zeros: four digits in each row
        "time": duration(trial.seconds),
        "values": [short_value(trial.point[key]) if key in trial.point else "" for key in keys],
        "reason": trial.reason,
        "link": trial.link if _is_web(trial.link) else "",
    }


def _is_web(address: str) -> bool:
    """Return whether an address is one of the web; a link to any other could run a script."""
    return address.startswith(("https://", "http://"))


def duration(seconds: float) -> str:
    """Return a duration as text, in seconds, minutes or hours."""
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.1f} min" if hours < 1 else f"{hours:.1f} h"
