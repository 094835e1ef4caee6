"""Prometheus metrics of a rank, set as Ray metrics, which the Ray agent on the node exports."""

import logging
import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from captioning.training.loop import StepResult

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_TAGS = ("run", "rank")
GAUGES = {
    "captioning_step": "number of steps done",
    "captioning_step_seconds": "seconds per step on this rank, mean since the last value",
    "captioning_loss_nats": "training loss of the last step, in nats per word",
    "captioning_images_per_second": "images per second over all ranks, while training",
    "captioning_data_wait_seconds": "seconds per step that a rank waits for data, mean over ranks since the last value",
    "captioning_checkpoint_stall_seconds": "seconds that training has waited for checkpoints since the rank started",
}
BAD_SAMPLES = "captioning_bad_samples"


class MetricsExport:
    """Sets the metrics of a rank, at most once a second; rank 0 also sets those of the whole run.

    Ray accepts the values even without a session or an agent; then nothing exports them.

    Args:
        run: name of the run, a tag of every metric.
        rank: number of this process in its group, a tag of every metric.
        clock: monotonic clock, in seconds.
    """

    def __init__(self, run: str, rank: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tags, self._is_first = {"run": run, "rank": str(rank)}, rank == 0
        self._clock, self._due_at = clock, -math.inf
        self._steps: list[StepResult] = []

    def record(self, result: StepResult, *, stall_seconds: float) -> None:
        """Record a step, and set the metrics if a second has passed since they were set.

        Args:
            result: result of the step.
            stall_seconds: time, in seconds, that training has waited for checkpoints so far.
        """
        self._steps.append(result)
        now = self._clock()
        if now >= self._due_at:
            self._due_at = now + _EVERY_SECONDS
            self._set(stall_seconds)

    def end(self, *, stall_seconds: float) -> None:
        """Set the metrics of the steps recorded since the last time."""
        if self._steps:
            self._set(stall_seconds)

    def _set(self, stall_seconds: float) -> None:
        steps, self._steps = self._steps, []
        seconds = sum(step.seconds for step in steps)
        values = {"captioning_step": steps[-1].step, "captioning_step_seconds": seconds / len(steps)}
        if self._is_first:
            values |= {
                "captioning_loss_nats": steps[-1].loss_nats,
                "captioning_images_per_second": sum(step.num_images for step in steps) / seconds,
                "captioning_data_wait_seconds": sum(step.data_wait_seconds for step in steps) / len(steps),
                "captioning_checkpoint_stall_seconds": stall_seconds,
            }
        for name, value in values.items():
            _gauge(name).set(value, self._tags)
        num_bad = sum(len(step.bad) for step in steps)
        if num_bad and self._is_first:
            _counter().inc(num_bad, self._tags)


@cache
def _gauge(name: str) -> Any:  # noqa: ANN401  Ray is imported where a rank runs
    from ray.util.metrics import Gauge

    return Gauge(name, GAUGES[name], tag_keys=_TAGS)


@cache
def _counter() -> Any:  # noqa: ANN401  as above
    from ray.util.metrics import Counter

    return Counter(BAD_SAMPLES, "bad samples skipped in training", tag_keys=_TAGS)
