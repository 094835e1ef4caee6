"""Log lines of a run for its user: all of them, as the driver asks for them; of checkpoints, not one for each."""

import logging
from collections.abc import Callable, Mapping

from captioning.evaluation.health import scores_of
from cluster.coordination.messages import metrics_text

logger = logging.getLogger(__name__)

_CHECKPOINT_LINE_EVERY_SECONDS = 10.0


class EventLog:
    """Log lines of a run, in order; any thread may add one.

    Args:
        clock: monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lines: list[str] = []
        self._clock, self._checkpoint_logged_at, self._unlogged = clock, float("-inf"), ""

    def log(self, event: str) -> None:
        """Log a line for the user."""
        logger.info("%s", event)
        self._lines.append(event)

    def log_checkpoint(self, step: int, metrics: Mapping[str, float], *, at_once: bool) -> None:
        """Log a checkpoint if it is to be logged at once, or the last line of a checkpoint is 10 s old.

        Otherwise keep its line, which is logged if no other checkpoint follows: a short run commits several a second.
        """
        self._unlogged = f"checkpoint at step {step}{': ' if metrics else ''}{metrics_text(scores_of(metrics))}"
        now = self._clock()
        if at_once or now - self._checkpoint_logged_at >= _CHECKPOINT_LINE_EVERY_SECONDS:
            self._checkpoint_logged_at = now
            self.log_last_checkpoint()

    def log_last_checkpoint(self) -> None:
        """Log the line of the last checkpoint, if it was kept."""
        line, self._unlogged = self._unlogged, ""
        if line:
            self.log(line)

    def after(self, num_known: int) -> tuple[list[str], int]:
        """Return the lines without the first ``num_known``, which the caller has, and the number of all lines."""
        lines = self._lines.copy()  # the watchdog's thread may append at any time
        # A caller that knows more lines than there are knew an earlier coordinator: it gets all of them.
        return lines[num_known if num_known <= len(lines) else 0 :], len(lines)
