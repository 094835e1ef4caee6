"""Asynchronous checkpointing: rank 0 writes checkpoints in a background thread while training continues.

A checkpoint is valid once the coordinator has committed it.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from captioning.data.vocabulary import Vocabulary
from captioning.training.checkpoint import save_checkpoint, snapshot
from captioning.training.checkpoint_description import CheckpointDescription
from captioning.training.loop import TrainingState
from cluster.coordination.interface import CoordinatorInterface
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import Claim
from cluster.runs.record import CommittedCheckpoint


class BackgroundWriter:
    """Background thread that runs one task at a time; submitting a second task waits for the first.

    An error of a task is raised by the next call.

    Args:
        clock: monotonic clock, in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="captioning-writer")
        self._work: Future[None] | None = None
        self.stall_seconds = 0.0
        """Time, in seconds, that callers have spent in ``submit`` and ``wait``."""

    def submit(self, prepare: Callable[[], Callable[[], None]]) -> Future[None]:
        """Wait for the earlier task, call ``prepare``, and run the function that it returns in the thread.

        Args:
            prepare: function that runs in the caller's thread, such as a copy of the state, and returns the task.

        Returns:
            Future that is done when the task is.

        Raises:
            Exception: the earlier task failed.
        """
        started = self._clock()
        self._join()
        self._work = self._pool.submit(prepare())
        self.stall_seconds += self._clock() - started
        return self._work

    def check(self) -> None:
        """Raise the error of a task that has ended; do not wait for one that has not.

        Raises:
            Exception: the task failed.
        """
        if self._work and self._work.done():
            self._join()

    def wait(self) -> None:
        """Wait for the task, if there is one.

        Raises:
            Exception: the task failed.
        """
        started = self._clock()
        self._join()
        self.stall_seconds += self._clock() - started

    def _join(self) -> None:
        work, self._work = self._work, None
        if work:
            work.result()


@dataclass(frozen=True, slots=True)
class CheckpointSaver:
    """Writes the checkpoints of an attempt; used on rank 0 only.

    Args:
        store: store of the run's checkpoints.
        coordinator: coordinator that commits the checkpoints.
        attempt: number of the attempt.
        vocabulary: vocabulary of the model.
        config: resolved configuration, as YAML.
        writer: background thread that writes the files.
        claim: claim on the checkpoints; None if they are in the run's folder.
    """

    store: CheckpointStore
    coordinator: CoordinatorInterface
    attempt: int
    vocabulary: Vocabulary
    config: str
    writer: BackgroundWriter
    claim: Claim | None = None

    def save(
        self,
        state: TrainingState,
        description: CheckpointDescription,
        *,
        metrics: dict[str, float],
        awaits_score: bool = False,
    ) -> Future[None]:
        """Copy the state now, and write it in the background.

        Args:
            state: training state of the bare model, not of its DDP replica.
            description: description of the checkpoint, without digests.
            metrics: metrics of the validation at this step, by name; empty without one.
            awaits_score: whether a validation task will score the checkpoint later.

        Returns:
            Future that is done when the checkpoint is committed.

        Raises:
            OSError: the checkpoint before this one could not be written.
            PermissionError: this attempt has been replaced.
            ClaimLostError: another home folder owns the checkpoints now.
        """
        return self.writer.submit(lambda: self._prepare(state, description, metrics, awaits_score))

    def _prepare(
        self, state: TrainingState, description: CheckpointDescription, metrics: dict[str, float], awaits_score: bool
    ) -> Callable[[], None]:
        copied = snapshot(state)
        name = CommittedCheckpoint(step=description.step, attempt=self.attempt).name

        def work() -> None:
            self._require_owner()  # its next owner may write a checkpoint of this name
            self.store.write(
                name,
                lambda folder: save_checkpoint(
                    folder, copied, self.vocabulary, description=description, config=self.config
                ),
            )
            # Only once all files are on disk: a crash before this leaves a folder that no record names.
            self._require_owner()
            self.coordinator.commit(description.step, metrics, awaits_score=awaits_score)

        return work

    def _require_owner(self) -> None:
        if self.claim:
            self.claim.require()
