"""A search's best trials in the terminal: a table that is kept up to date, or a line now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.search_config import SearchConfig

if TYPE_CHECKING:
    from cluster.searching import SearchProgress
    from cluster.trials import Trial

logger = logging.getLogger(__name__)

_NUM_SHOWN = 10
_LINE_EVERY_SECONDS = 10.0


@contextmanager
def showing(search: SearchConfig) -> Iterator[Callable[["SearchProgress"], None]]:
    """Give what shows a search's progress, on standard error."""
    if not sys.stderr.isatty():
        yield _Lines(search).show
        return
    with Live(console=Console(stderr=True), refresh_per_second=2) as live:
        yield lambda progress: live.update(trials_table(progress, search))


def trials_table(progress: "SearchProgress", search: SearchConfig) -> Table:
    """Return the best trials and those that run, with what was spent and what is left below."""
    trials = sorted(progress.trials, key=lambda trial: _place(trial, search))[:_NUM_SHOWN]
    keys = list(trials[0].point) if trials else []
    table = Table(title="Trials", title_justify="left", caption=_spent(progress), caption_justify="left")
    for column in ("trial", "state", "epoch", search.metric.replace("_", " "), *keys):
        table.add_column(column, justify="left" if column in ("trial", "state") else "right")
    for trial in trials:
        score = trial.best(search.mode)
        shown = "" if score is None else f"{score:.4f}"
        values = [_value(trial.point[key]) for key in keys]
        style = "bold" if trial is progress.best else "dim" if trial.state in ("stopped", "failed") else ""
        table.add_row(trial.name, trial.state, f"{trial.epochs}", shown, *values, style=style)
    return table


def _place(trial: "Trial", search: SearchConfig) -> tuple[bool, float, int]:
    score = trial.best(search.mode)
    sign = 1 if search.mode == "min" else -1
    return score is None, 0.0 if score is None else sign * score, trial.number


def _spent(progress: "SearchProgress") -> str:
    counts = [
        f"{count} {state}"
        for state in ("finished", "stopped", "failed", "running")
        if (count := sum(trial.state == state for trial in progress.trials))
    ]
    left = "" if progress.seconds_left is None else f"; about {_clock(progress.seconds_left)} left"
    return (
        f"{len(progress.trials)} of {progress.num_trials} trials: {', '.join(counts) or 'none yet'}; "
        f"{progress.num_epochs_done} epochs in {_clock(progress.seconds)}{left}"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class _Lines:
    """Logs a line when something has changed, not too often."""

    def __init__(self, search: SearchConfig) -> None:
        self._search, self._last, self._shown = search, -_LINE_EVERY_SECONDS, ""

    def show(self, progress: "SearchProgress") -> None:
        """Log how far the search is."""
        now = time.monotonic()
        state = f"{[(trial.number, trial.epochs, trial.state) for trial in progress.trials]}"
        if state == self._shown or now - self._last < _LINE_EVERY_SECONDS:
            return
        self._shown, self._last = state, now
        best = progress.best
        score = best.best(self._search.mode) if best else None
        shown = f"; best {score:.4f} by {best.name}" if best and score is not None else ""
        logger.info("%s%s", _spent(progress), shown)
