"""A training run's progress as a line of text, a few times a minute."""

import logging
import time
from collections import deque
from collections.abc import Callable

from cluster.protocol import Progress

logger = logging.getLogger(__name__)

_LINE_EVERY_SECONDS = 10.0
_SPEED_OVER_ROWS = 30


class ProgressLog:
    """Logs what is new of a run.

    Args:
        num_steps: of the whole training.
        clock: seconds, monotonic.
    """

    def __init__(self, num_steps: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._num_steps, self._clock = num_steps, clock
        self._attempt, self._shown_step = 0, 0
        self.num_events = 0
        self._last_line = -_LINE_EVERY_SECONDS
        self._seen: deque[tuple[float, int]] = deque(maxlen=_SPEED_OVER_ROWS)

    def show(self, progress: Progress, *, is_last: bool = False) -> None:
        """Log new events at once, and a line with loss, speed and time left when it is due."""
        if progress.attempt != self._attempt:
            self._attempt = progress.attempt
            self._seen.clear()
        if progress.num_events < self.num_events:  # a coordinator that was killed begins anew
            self.num_events = 0
        num_new = progress.num_events - self.num_events
        for event in progress.events[len(progress.events) - num_new :]:
            logger.info("%s", event)
        self.num_events = progress.num_events
        row, now = progress.row, self._clock()
        if row is None:
            return
        if not self._seen or self._seen[-1][1] != row.step:
            self._seen.append((now, row.step))
        is_due = now - self._last_line >= _LINE_EVERY_SECONDS or is_last
        if is_due and row.step != self._shown_step:
            self._last_line, self._shown_step = now, row.step
            logger.info(
                "step %d of %d (epoch %.2f): loss %.3f nats, %.0f images/s%s",
                row.step,
                self._num_steps,
                row.metrics["epoch"],
                row.metrics["train_loss_nats"],
                row.metrics["images_per_second"],
                self._time_left(row.step),
            )

    def _time_left(self, step: int) -> str:
        (first_time, first_step), (last_time, last_step) = self._seen[0], self._seen[-1]
        if last_step <= first_step or step >= self._num_steps:
            return ""
        seconds = (self._num_steps - step) * (last_time - first_time) / (last_step - first_step)
        return f", {int(seconds // 60)} min {int(seconds % 60):02d} s left"
