"""View of a running search: a live table of the best trials in a terminal, otherwise a log line now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.job_progress import ProgressWriter, duration
from cluster.search.space.config import SearchConfig
from jobs.console.progress_bars import logging_above
from jobs.console.tables import plain

if TYPE_CHECKING:
    from cluster.search.scheduler import SearchProgress
    from cluster.search.trials import Trial

logger = logging.getLogger(__name__)

_NUM_SHOWN = 10
_METRIC_TITLES = {"validation_loss_nats": "validation loss (nats/word)", "validation_cider_d": "validation CIDEr-D"}
_LINE_EVERY_SECONDS = 10.0


class View(Protocol):
    """View of a search."""

    def show(self, progress: "SearchProgress") -> None:
        """Show the progress of the trials."""
        ...

    def show_extraction(self, num_done: int, num_images: int) -> None:
        """Show how many images have features so far."""
        ...


@contextmanager
def search_view(search: SearchConfig) -> Iterator[View]:
    """Yield a view of a search on standard error."""
    if not sys.stderr.isatty():
        yield Lines(search)
        return
    with Live(console=Console(stderr=True), refresh_per_second=2, redirect_stdout=False) as live, logging_above():
        yield _LiveTable(search, live)


def trials_table(progress: "SearchProgress", search: SearchConfig) -> Table:
    """Return a table of the ten best trials, with the progress of the search below it."""
    trials = sorted(progress.trials, key=lambda trial: _rank(trial, search))[:_NUM_SHOWN]
    keys = list(trials[0].point) if trials else []
    table = Table(title="Trials", title_justify="left", caption=spent(progress), caption_justify="left")
    for column in ("trial", "state", "epoch", _METRIC_TITLES[search.metric], *keys):
        table.add_column(column, justify="left" if column in ("trial", "state") else "right")
    for trial in trials:
        score = trial.best(search.mode)
        shown = "" if score is None else f"{score:.4f}"
        values = [_value(trial.point[key]) for key in keys]
        style = "bold" if trial is progress.best else "dim" if trial.state in ("stopped", "failed") else ""
        table.add_row(trial.name, trial.state, f"{trial.epochs}", shown, *map(plain, values), style=style)
    return table


def spent(progress: "SearchProgress") -> str:
    """Return the progress of a search in one line: trials by state, epochs, time used and time left."""
    counts = [
        f"{count} {state}"
        for state in ("finished", "stopped", "failed", "running")
        if (count := sum(trial.state == state for trial in progress.trials))
    ]
    left = "" if progress.seconds_left is None else f"; about {duration(progress.seconds_left)} left"
    return (
        f"{len(progress.trials)} of {progress.num_trials} trials: {', '.join(counts) or 'none yet'}; "
        f"{progress.num_epochs_done} epochs in {duration(progress.seconds)}{left}"
    )


class Lines:
    """View that logs a line when something has changed, at most every 10 seconds.

    Args:
        search: settings of the search.
        clock: function that returns monotonic time, in seconds.
    """

    def __init__(self, search: SearchConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._search, self._clock = search, clock
        self._last, self._shown = -_LINE_EVERY_SECONDS, ""
        self._writer = ProgressWriter({"kind": "search"}, clock=clock)

    def show(self, progress: "SearchProgress") -> None:
        """Log the progress of the trials and the best score, and report both to ``captioning status``."""
        best = progress.best
        score = best.best(self._search.mode) if best else None
        shown = f"; best {score:.4f} by {best.name}" if best and score is not None else ""
        self._writer.write(
            {
                "num_trials_done": sum(trial.has_ended for trial in progress.trials),
                "num_trials": progress.num_trials,
                "num_running": sum(trial.state == "running" for trial in progress.trials),
                "num_epochs": progress.num_epochs_done,
                "best": best.name if best else None,
                "best_score": score,
                "metric": self._search.metric,
                "seconds_left": progress.seconds_left,
            }
        )
        state = f"{[(trial.number, trial.epochs, trial.state) for trial in progress.trials]}"
        self._log(state, f"{spent(progress)}{shown}")

    def show_extraction(self, num_done: int, num_images: int) -> None:
        """Log how many images have features so far."""
        self._log(f"{num_done}", f"extracted features of {num_done} of {num_images} images")

    def _log(self, state: str, line: str) -> None:
        now = self._clock()
        if state != self._shown and now - self._last >= _LINE_EVERY_SECONDS:
            self._shown, self._last = state, now
            logger.info("%s %s", time.strftime("%H:%M:%S"), line)


class _LiveTable:
    """View that updates a live table."""

    def __init__(self, search: SearchConfig, live: Live) -> None:
        self._search, self._live = search, live

    def show(self, progress: "SearchProgress") -> None:
        self._live.update(trials_table(progress, self._search))

    def show_extraction(self, num_done: int, num_images: int) -> None:
        self._live.update(f"extracted features of {num_done} of {num_images} images")


def _rank(trial: "Trial", search: SearchConfig) -> tuple[bool, float, int]:
    score = trial.best(search.mode)
    sign = 1 if search.mode == "min" else -1
    return score is None, 0.0 if score is None else sign * score, trial.number


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
