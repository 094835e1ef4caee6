"""What a rank needs of a coordinator, whether that is an actor of its own or stands in the rank's own process."""

from collections.abc import Sequence
from typing import Protocol

from captioning.training.collectives import Flags
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.runs.record import CommittedCheckpoint


class CoordinatorInterface(Protocol):
    """Decides which attempt and which checkpoint count; ``CoordinatorClient`` and ``LocalCoordinator`` do it."""

    rank: int
    """Number of this process in its group."""

    def worker_info(self) -> WorkerInfo:
        """Return where this process runs."""
        ...

    def begin_attempt(self, workers: Sequence[WorkerInfo]) -> Attempt:
        """Begin an attempt, from the latest checkpoint that counts; on rank 0 alone."""
        ...

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Take a damaged checkpoint out of the record; return the same attempt from the one before it."""
        ...

    def join_attempt(self, attempt: Attempt) -> None:
        """Take part in an attempt that rank 0 has begun."""
        ...

    def heartbeat(self, step: int) -> None:
        """Note that this rank makes progress, at a number of steps done."""
        ...

    def requests(self) -> Flags:
        """Return what is requested of all ranks since the last call; on rank 0 alone."""
        ...

    def add_row(self, step: int, metrics: dict[str, float]) -> None:
        """Journal the metrics of a step, unless the step is known."""
        ...

    def commit(self, step: int, metrics: dict[str, float], *, awaits_score: bool = False) -> None:
        """Make a checkpoint count that is completely written, and all rows before it.

        Args:
            step: step of the checkpoint.
            metrics: scores that are known.
            awaits_score: whether a task is going to score it.

        Raises:
            PermissionError: this attempt has been replaced.
        """
        ...

    def await_score(self, step: int) -> None:
        """Note that a task is going to score the checkpoint of a step, which counts already."""
        ...

    def add_score(self, step: int, metrics: dict[str, float]) -> None:
        """Attach scores to the checkpoint of a step that has passed."""
        ...

    def end_training(self) -> None:
        """Note that no step is left, or the ranks have stopped on request, and their last checkpoint counts."""
        ...

    def log_event(self, event: str) -> None:
        """Log an event for people."""
        ...
