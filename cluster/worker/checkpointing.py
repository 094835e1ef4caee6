"""Checkpoints of a run, written by rank 0 while training goes on.

A checkpoint counts once the coordinator has committed it.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from captioning.data.vocabulary import Vocabulary
from captioning.training.checkpoint import (
    CheckpointDescription,
    save_checkpoint,
    snapshot,
)
from captioning.training.loop import TrainingState
from cluster.coordination.interface import CoordinatorInterface
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.record import CommittedCheckpoint


class BackgroundWriter:
    """Runs one piece of work at a time in a thread; a second one waits for the first.

    An error of the work is raised at the next call.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="captioning-writer")
        self._work: Future[None] | None = None
        self.stall_seconds = 0.0

    def submit(self, prepare: Callable[[], Callable[[], None]]) -> Future[None]:
        """Call ``prepare`` now, once earlier work has ended, and run what it returns in the thread.

        Returns:
            Future that is done when the work is.

        Raises:
            Exception: the work before it failed.
        """
        started = self._clock()
        self._join()
        self._work = self._pool.submit(prepare())
        self.stall_seconds += self._clock() - started
        return self._work

    def check(self) -> None:
        """Raise the error of work that has ended, without waiting for any that has not.

        Raises:
            Exception: the work failed.
        """
        if self._work and self._work.done():
            self._join()

    def wait(self) -> None:
        """Wait until nothing is left to do.

        Raises:
            Exception: the work failed.
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
    """Writes the checkpoints of an attempt, on rank 0 alone.

    Args:
        store: store of the run's checkpoints.
        coordinator: makes them count.
        attempt: number of the attempt.
        vocabulary: vocabulary of the model.
        config: the resolved configuration, YAML.
        writer: background thread.
    """

    store: CheckpointStore
    coordinator: CoordinatorInterface
    attempt: int
    vocabulary: Vocabulary
    config: str
    writer: BackgroundWriter

    def save(
        self, state: TrainingState, description: CheckpointDescription, *, awaits_score: bool = False
    ) -> Future[None]:
        """Copy the state now, and write it while training goes on.

        Args:
            state: training state of the bare model.
            description: description of the checkpoint, without digests.
            awaits_score: whether a task is going to score it.

        Returns:
            Future that is done when the checkpoint counts.

        Raises:
            OSError: the checkpoint before this one could not be written.
            PermissionError: this attempt has been replaced.
        """
        return self.writer.submit(lambda: self._prepare(state, description, awaits_score))

    def _prepare(
        self, state: TrainingState, description: CheckpointDescription, awaits_score: bool
    ) -> Callable[[], None]:
        copied = snapshot(state)
        metrics = dict(description.metrics)
        name = CommittedCheckpoint(step=description.step, attempt=self.attempt, metrics=metrics).name

        def work() -> None:
            self.store.write(
                name,
                lambda folder: save_checkpoint(
                    folder, copied, self.vocabulary, description=description, config=self.config
                ),
            )
            self.coordinator.commit(description.step, metrics, awaits_score=awaits_score)

        return work
