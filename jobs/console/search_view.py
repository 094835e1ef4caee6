"""A search in the terminal: a table of the best trials that is kept up to date, or a line now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.job_progress import ProgressWriter
from cluster.search.space.config import SearchConfig

if TYPE_CHECKING:
    from cluster.search.scheduler import SearchProgress
    from cluster.search.trials import Trial

logger = logging.getLogger(__name__)

_NUM_SHOWN = 10
_LINE_EVERY_SECONDS = 10.0


class View(Protocol):
    """Shows a search."""

    def show(self, progress: "SearchProgress") -> None:
        """Show how far the trials are."""
        ...

    def show_extraction(self, num_done: int, num_images: int) -> None:
        """Show how many images have features."""
        ...


@contextmanager
def search_view(search: SearchConfig) -> Iterator[View]:
    """Give what shows a search, on standard error."""
    if not sys.stderr.isatty():
        yield Lines(search)
        return
    with Live(console=Console(stderr=True), refresh_per_second=2) as live, _logging_above():
        yield _LiveTable(search, live)


@contextmanager
def _logging_above() -> Iterator[None]:
    """Log by way of the standard error that a live table has put in place, so that lines stand above it."""
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, logging.StreamHandler)]
    before = [one.setStream(sys.stderr) for one in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream or sys.stderr)


def trials_table(progress: "SearchProgress", search: SearchConfig) -> Table:
    """Return the best trials and those that run, with what was spent and what is left below."""
    trials = sorted(progress.trials, key=lambda trial: _rank(trial, search))[:_NUM_SHOWN]
    keys = list(trials[0].point) if trials else []
    table = Table(title="Trials", title_justify="left", caption=spent(progress), caption_justify="left")
    for column in ("trial", "state", "epoch", search.metric.replace("_", " "), *keys):
        table.add_column(column, justify="left" if column in ("trial", "state") else "right")
    for trial in trials:
        score = trial.best(search.mode)
        shown = "" if score is None else f"{score:.4f}"
        values = [_value(trial.point[key]) for key in keys]
        style = "bold" if trial is progress.best else "dim" if trial.state in ("stopped", "failed") else ""
        table.add_row(trial.name, trial.state, f"{trial.epochs}", shown, *values, style=style)
    return table


def spent(progress: "SearchProgress") -> str:
    """Return how far a search is, in a line."""
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


class Lines:
    """Logs a line when something has changed, not too often.

    Args:
        search: the search's settings.
        clock: monotonic clock, in seconds.
    """

    def __init__(self, search: SearchConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._search, self._clock = search, clock
        self._last, self._shown = -_LINE_EVERY_SECONDS, ""
        self._writer = ProgressWriter({"kind": "search"}, clock=clock)

    def show(self, progress: "SearchProgress") -> None:
        """Log how far the trials are, and which is the best."""
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
        """Log how many images have features."""
        self._log(f"{num_done}", f"features of {num_done} of {num_images} images")

    def _log(self, state: str, line: str) -> None:
        now = self._clock()
        if state != self._shown and now - self._last >= _LINE_EVERY_SECONDS:
            self._shown, self._last = state, now
            logger.info("%s", line)


class _LiveTable:
    def __init__(self, search: SearchConfig, live: Live) -> None:
        self._search, self._live = search, live

    def show(self, progress: "SearchProgress") -> None:
        self._live.update(trials_table(progress, self._search))

    def show_extraction(self, num_done: int, num_images: int) -> None:
        self._live.update(f"features of {num_done} of {num_images} images")


def _rank(trial: "Trial", search: SearchConfig) -> tuple[bool, float, int]:
    score = trial.best(search.mode)
    sign = 1 if search.mode == "min" else -1
    return score is None, 0.0 if score is None else sign * score, trial.number


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
