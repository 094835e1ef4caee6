"""Progress on standard error: bars on a terminal, otherwise a log line now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cluster.job_progress import duration

if TYPE_CHECKING:
    from cluster.training.progress import StepProgress

logger = logging.getLogger(__name__)

Count = Callable[[str, int, int], None]
"""Shows the name of the items, the number of items done and the number of all items."""
_LINE_EVERY_SECONDS = 10.0


@contextmanager
def counting() -> Iterator[Count]:
    """Yield a function that shows how many items are done."""
    with _showing((MofNCompleteColumn(),), CountLines()) as show:
        yield show


@contextmanager
def _showing(amount: Sequence[ProgressColumn], lines: "CountLines") -> Iterator[Count]:
    """Yield a function that draws bars on a terminal, with these columns, or logs lines elsewhere."""
    if not sys.stderr.isatty():
        yield lines.show
        return
    columns = TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn()
    tasks = {}
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars, logging_above():

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield show


class CountLines:
    """Logs how many items are done, every 10 seconds.

    Args:
        unit: unit of the logged numbers, with a leading space.
        scale: size of that unit, in items.
        clock: function that returns monotonic time, in seconds.
    """

    def __init__(self, *, unit: str = "", scale: float = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit, self._scale, self._clock = unit, scale, clock
        self._what, self._first, self._started, self._last = "", 0, 0.0, 0.0

    def show(self, what: str, done: int, total: int) -> None:
        """Log a line if one is due."""
        now = self._clock()
        if what != self._what:
            self._what, self._first, self._started, self._last = what, done, now, now
        if now - self._last < _LINE_EVERY_SECONDS or done <= self._first:
            return
        self._last = now
        left = (total - done) * (now - self._started) / (done - self._first)
        amount = f"{done / self._scale:.0f} of {total / self._scale:.0f}{self._unit}"
        logger.info("%s %s: %s, %s left", time.strftime("%H:%M:%S"), what, amount, duration(left))


@contextmanager
def transferring() -> Iterator[Count]:
    """Yield a function that shows how many bytes are done."""
    with _showing((DownloadColumn(), TransferSpeedColumn()), CountLines(unit=" MB", scale=1e6)) as show:
        yield show


@contextmanager
def training_bar() -> "Iterator[Callable[[StepProgress], None] | None]":
    """Yield a function that shows the steps of a training run in a bar; None if standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = TextColumn("step"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars, logging_above():

        def show(progress: "StepProgress") -> None:
            if not bars.tasks:
                bars.add_task("", total=progress.num_steps)
            bars.update(bars.tasks[0].id, completed=progress.step, description=bar_text(progress))

        yield show


def bar_text(progress: "StepProgress") -> str:
    """Return the text beside the bar of a training run."""
    facts = [f"loss {progress.loss_nats:.3f}"]
    if progress.reward is not None:
        facts.append(f"self-critical reward {progress.reward:.3f}")
    if progress.best_loss_nats is not None:
        facts.append(f"best {progress.best_loss_nats:.3f}")
    facts.append(progress.speed)
    if progress.seconds_left is not None:
        facts.append(f"{duration(progress.seconds_left)} left")
    return "  ".join(facts)


@contextmanager
def logging_above() -> Iterator[None]:
    """Log to the ``sys.stderr`` that a live display has replaced, so that log lines appear above the display."""
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, logging.StreamHandler)]
    before = [one.setStream(sys.stderr) for one in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream or sys.stderr)
