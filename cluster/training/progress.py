"""Log of a training run's progress: events at once, and a line with loss and speed every 10 s."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from cluster.coordination.messages import RunProgress, WorkerInfo
from cluster.job_progress import ProgressWriter
from cluster.runs.journal import Row

logger = logging.getLogger(__name__)

_LINE_EVERY_SECONDS = 10.0
_SPEED_OVER_ROWS = 30  # number of latest rows over which the speed is measured, for the time left


class ProgressLog:
    """Logs the new events and the progress of a run.

    Args:
        num_steps: number of steps of the whole training.
        about: values that describe the run, for ``captioning status`` of a submitted job.
        clock: returns the time in seconds, monotonic.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        about: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_steps, self._clock = num_steps, clock
        self._writer = ProgressWriter({"kind": "training", **(about or {})}, clock=clock)
        self._ranks: list[dict[str, Any]] = []
        self._attempt, self._shown_step = 0, 0
        self.num_events = 0
        self._last_line = -_LINE_EVERY_SECONDS
        self._seen: deque[tuple[float, int]] = deque(maxlen=_SPEED_OVER_ROWS)

    def show(self, progress: RunProgress, *, is_last: bool = False) -> None:
        """Log new events at once, and a line with loss, speed and time left when it is due."""
        if progress.attempt != self._attempt:  # steps start lower again: a speed across attempts would be wrong
            self._attempt = progress.attempt
            self._seen.clear()
        if progress.num_events < self.num_events:  # a restarted coordinator counts its events from 0
            self.num_events = 0
        num_new = progress.num_events - self.num_events
        for event in progress.events[len(progress.events) - num_new :]:
            logger.info("%s", event)
        self.num_events = progress.num_events
        ranks = [_address(worker) for worker in progress.workers]
        if ranks != self._ranks:
            self._ranks = ranks
            self._writer.write({"ranks": ranks}, is_last=True)
        row, now = progress.row, self._clock()
        if row is None:
            return
        if not self._seen or self._seen[-1][1] != row.step:
            self._seen.append((now, row.step))
        self._writer.write(self._described(progress, row), is_last=is_last)
        is_due = now - self._last_line >= _LINE_EVERY_SECONDS or is_last
        if is_due and row.step != self._shown_step:
            self._last_line, self._shown_step = now, row.step
            logger.info(
                "step %d of %d (epoch %.2f): loss %.3f nats, %.0f images/s%s%s",
                row.step,
                self._num_steps,
                row.metrics["epoch"],
                row.metrics["train_loss_nats"],
                row.metrics["images_per_second"],
                self._time_left(row.step),
                f", {progress.num_steps_redone} steps redone" if progress.num_steps_redone else "",
            )

    def _described(self, progress: RunProgress, row: Row) -> dict[str, Any]:
        """Return the progress by name, for ``captioning status`` of a submitted job."""
        names = ("epoch", "train_loss_nats", "images_per_second", "data_wait_share")
        return {
            "step": row.step,
            "num_steps": self._num_steps,
            **{name: row.metrics.get(name) for name in names},
            "num_workers": len(progress.workers),
            "num_restarts": max(progress.attempt - 1, 0),
            "num_steps_redone": progress.num_steps_redone,
            "seconds_left": self._seconds_left(row.step),
        }

    def _time_left(self, step: int) -> str:
        seconds = self._seconds_left(step)
        return "" if seconds is None else f", {int(seconds // 60)} min {int(seconds % 60):02d} s left"

    def _seconds_left(self, step: int) -> float | None:
        (first_time, first_step), (last_time, last_step) = self._seen[0], self._seen[-1]
        if last_step <= first_step or step >= self._num_steps:
            return None
        return (self._num_steps - step) * (last_time - first_time) / (last_step - first_step)


def _address(worker: WorkerInfo) -> dict[str, Any]:
    return {"rank": worker.rank, "host": worker.host, "node_id": worker.node_id, "pid": worker.pid, "log": worker.log}
