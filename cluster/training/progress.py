"""Log of a training run's progress: events at once, and each step to a progress bar or every 10 s as a line."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cluster.coordination.messages import Phase, RunProgress, WorkerInfo
from cluster.job_progress import ProgressWriter, duration
from cluster.runs.journal import Row
from cluster.runs.score_history import VALIDATION_LOSS

logger = logging.getLogger(__name__)

_PHASES: Mapping[Phase, str] = {
    "waiting": "waiting for workers",
    "starting": "starting workers",
    "training": "training",
    "ended": "ending workers",
}
_LINE_EVERY_SECONDS = 10.0
_SPEED_OVER_ROWS = 30  # number of latest rows over which the speed is measured, for the time left


class StepProgress(NamedTuple):
    """Progress of a run after a step."""

    step: int
    num_steps: int
    epoch: float
    loss_nats: float
    """Training loss of the step, in nats per word."""
    best_loss_nats: float | None
    """Validation loss of the best checkpoint so far, in nats per word; None before the first validation."""
    images_per_second: float
    seconds_left: float | None
    """Estimated time to the last step; None while it is unknown."""
    num_steps_redone: int
    reward: float | None = None
    """Mean reward of the captions that the model sampled in the step; None before self-critical training."""
    data_wait_share: float | None = None
    """Share of the step in which the workers waited for data; None in rows of earlier releases."""

    @property
    def speed(self) -> str:
        """Return the speed, and what of the time goes to waiting for data, as text."""
        waiting = "" if self.data_wait_share is None else f" ({100 * self.data_wait_share:.0f} % data wait)"
        return f"{self.images_per_second:.0f} images/s{waiting}"

    def __str__(self) -> str:
        """Return the progress as one line."""
        best = "" if self.best_loss_nats is None else f" (best validation {self.best_loss_nats:.3f})"
        reward = "" if self.reward is None else f", self-critical reward {self.reward:.3f}"
        left = "" if self.seconds_left is None else f", {duration(self.seconds_left)} left"
        redone = f", {self.num_steps_redone} steps redone" if self.num_steps_redone else ""
        return (
            f"step {self.step} of {self.num_steps} (epoch {self.epoch:.2f}): "
            f"loss {self.loss_nats:.3f} nats/word{best}{reward}, {self.speed}{left}{redone}"
        )


class ProgressLog:
    """Logs the new events and the progress of a run.

    Args:
        num_steps: number of steps of the whole training.
        about: values that describe the run, for ``captioning status`` of a submitted job.
        show_step: function that is called after each step, instead of a log line every 10 s.
        clock: returns the time in seconds, monotonic.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        about: Mapping[str, Any] | None = None,
        show_step: Callable[[StepProgress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_steps, self._clock = num_steps, clock
        self._show_step = show_step
        self._writer = ProgressWriter({"kind": "training", **(about or {})}, clock=clock)
        self._ranks: list[dict[str, Any]] = []
        self._phase = ""
        self._attempt, self._shown_step = 0, 0
        self._first_row: Row | None = None
        self.num_events = 0
        self._last_line = -_LINE_EVERY_SECONDS
        self._seen: deque[tuple[float, int]] = deque(maxlen=_SPEED_OVER_ROWS)

    def show(self, progress: RunProgress, *, is_last: bool = False) -> None:
        """Log new events at once; show a new step, or log a line about it when one is due."""
        if progress.attempt != self._attempt:  # steps start lower again: a speed across attempts would be wrong
            self._attempt, self._first_row = progress.attempt, progress.row
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
        before, self._phase = self._phase, self._phase_of(progress)
        row, now = progress.row, self._clock()
        if row is None:
            self._writer.write({"phase": self._phase}, is_last=self._phase != before)
            return
        if not self._seen or self._seen[-1][1] != row.step:
            self._seen.append((now, row.step))
        self._writer.write(self._described(progress, row), is_last=is_last or self._phase != before)
        is_due = self._show_step or is_last or now - self._last_line >= _LINE_EVERY_SECONDS
        if is_due and row.step != self._shown_step:
            self._last_line, self._shown_step = now, row.step
            self._show(self._after_step(progress, row))

    def _show(self, step: StepProgress) -> None:
        if self._show_step:
            self._show_step(step)
        else:
            logger.info("%s %s", time.strftime("%H:%M:%S"), step)

    def _after_step(self, progress: RunProgress, row: Row) -> StepProgress:
        return StepProgress(
            step=row.step,
            num_steps=self._num_steps,
            epoch=row.metrics["epoch"],
            loss_nats=row.metrics["train_loss_nats"],
            best_loss_nats=progress.best.metrics.get(VALIDATION_LOSS) if progress.best else None,
            images_per_second=row.metrics["images_per_second"],
            seconds_left=self._seconds_left(row.step),
            num_steps_redone=progress.num_steps_redone,
            reward=row.metrics.get("train_reward"),
            data_wait_share=row.metrics.get("data_wait_share"),
        )

    def _phase_of(self, progress: RunProgress) -> str:
        """Return what the run is doing; a row that was there before the attempt is not a step of it."""
        if progress.phase == "training" and progress.row in (None, self._first_row):
            return "loading weights and data"
        is_self_critical = progress.phase == "training" and progress.row and "train_reward" in progress.row.metrics
        return f"{'self-critical ' if is_self_critical else ''}{_PHASES[progress.phase]}"

    def _described(self, progress: RunProgress, row: Row) -> dict[str, Any]:
        """Return the progress by name, for ``captioning status`` of a submitted job."""
        validated, best, latest = progress.validated, progress.best, progress.latest
        names = ("epoch", "train_loss_nats", "train_reward", "images_per_second", "data_wait_share")
        return {
            "step": row.step,
            "num_steps": self._num_steps,
            **{name: row.metrics.get(name) for name in names},
            "num_workers": len(progress.workers),
            "num_restarts": max(progress.attempt - 1, 0),
            "num_steps_redone": progress.num_steps_redone,
            "seconds_left": self._seconds_left(row.step),
            "phase": self._phase,
            "validation": {"step": validated.step, "metrics": validated.metrics} if validated else None,
            "best_step": best.step if best and best.metrics else None,
            "checkpoint_step": latest.step if latest else None,
        }

    def _seconds_left(self, step: int) -> float | None:
        (first_time, first_step), (last_time, last_step) = self._seen[0], self._seen[-1]
        if last_step <= first_step or step >= self._num_steps:
            return None
        return (self._num_steps - step) * (last_time - first_time) / (last_step - first_step)


def _address(worker: WorkerInfo) -> dict[str, Any]:
    return {"rank": worker.rank, "host": worker.host, "node_id": worker.node_id, "pid": worker.pid, "log": worker.log}
