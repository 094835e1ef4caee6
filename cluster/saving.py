"""Checkpoints that are written while training goes on, and count once the coordinator has taken them."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from captioning.checkpoint import CheckpointDescription, save_checkpoint, snapshot
from captioning.training import TrainingState
from captioning.vocabulary import Vocabulary
from cluster.link import Link
from cluster.runs import CommittedCheckpoint
from cluster.solo import SoloLink
from cluster.store import CheckpointStore


class BackgroundWriter:
    """Runs one piece of work at a time in a thread; a second one waits for the first.

    What fails there is raised at the next call.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="captioning-writer")
        self._work: Future[None] | None = None
        self.stall_seconds = 0.0

    def submit(self, prepare: Callable[[], Callable[[], None]]) -> Future[None]:
        """Prepare work here and now, and do it in the thread, after that before it has ended.

        Returns:
            Done when the work is.

        Raises:
            Exception: the work before it failed.
        """
        started = self._clock()
        self._join()
        self._work = self._pool.submit(prepare())
        self.stall_seconds += self._clock() - started
        return self._work

    def check(self) -> None:
        """Look, without waiting, whether what is done has failed.

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
class Saver:
    """Writes the checkpoints of an attempt, on rank 0 alone.

    Args:
        store: where they lie.
        link: to the coordinator.
        attempt: number of it.
        vocabulary: of the model.
        config: the resolved configuration, YAML.
        writer: does it in the background.
    """

    store: CheckpointStore
    link: Link | SoloLink
    attempt: int
    vocabulary: Vocabulary
    config: str
    writer: BackgroundWriter

    def save(
        self, state: TrainingState, description: CheckpointDescription, *, awaits_score: bool = False
    ) -> Future[None]:
        """Copy the state now, and write it while training goes on.

        Args:
            state: of the bare model.
            description: of the checkpoint.
            awaits_score: whether a score is to be attached to it later.

        Returns:
            Done when the checkpoint counts.

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
            self.link.commit(description.step, metrics, awaits_score=awaits_score)

        return work
