"""Interface of a coordinator for a rank, the same for an actor and for a coordinator in the rank's own process."""

from collections.abc import Sequence
from typing import Protocol

from captioning.training.collectives import Flags
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.runs.record import CommittedCheckpoint


class CoordinatorInterface(Protocol):
    """Begins attempts and commits checkpoints; implemented by ``CoordinatorClient`` and ``LocalCoordinator``."""

    rank: int
    """Number of this process in its group."""

    def worker_info(self) -> WorkerInfo:
        """Return the rank, host and process id of this process."""
        ...

    def begin_attempt(self, workers: Sequence[WorkerInfo]) -> Attempt:
        """Begin an attempt from the latest committed checkpoint; call on rank 0 only."""
        ...

    def reject(self, attempt: int, checkpoint: CommittedCheckpoint, reason: str) -> Attempt:
        """Remove a damaged checkpoint from the record; return the attempt with the checkpoint before it."""
        ...

    def join_attempt(self, attempt: Attempt) -> None:
        """Join an attempt that rank 0 has begun."""
        ...

    def heartbeat(self, step: int) -> None:
        """Record that this rank makes progress and has done ``step`` steps."""
        ...

    def requests(self) -> Flags:
        """Return the requests to all ranks since the last call; call on rank 0 only."""
        ...

    def add_row(self, step: int, metrics: dict[str, float]) -> None:
        """Journal the metrics of a step, unless the journal has that step."""
        ...

    def commit(self, step: int, metrics: dict[str, float], *, awaits_score: bool = False) -> None:
        """Commit a checkpoint, after all of its files are written, and all rows before it.

        Args:
            step: number of steps done in the checkpoint.
            metrics: known scores of the checkpoint, by name.
            awaits_score: whether a validation task will score the checkpoint later.

        Raises:
            PermissionError: this attempt has been replaced.
        """
        ...

    def await_score(self, step: int) -> None:
        """Announce that a validation task will score the committed checkpoint of a step."""
        ...

    def add_score(self, step: int, metrics: dict[str, float]) -> None:
        """Attach scores to the checkpoint of an earlier step."""
        ...

    def begin_self_critical(self) -> CommittedCheckpoint:
        """Record that self-critical training starts from the best checkpoint, and return that; call on rank 0 only."""
        ...

    def end_training(self, stopped_early: str = "") -> None:
        """Report that the ranks have stopped, and the last checkpoint is committed.

        Args:
            stopped_early: why the ranks stop before the last step, without a request; empty if they do not.
        """
        ...

    def log_event(self, event: str) -> None:
        """Log a line for the user."""
        ...
