"""Checkpoints of a rank: resumed from at the start, and written while training goes on.

A checkpoint counts once the coordinator has committed it.
"""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from captioning.data.vocabulary import Vocabulary
from captioning.model.calibration import calibrate
from captioning.model.caption_model import CaptionModel
from captioning.training.checkpoint import (
    CheckpointDescription,
    describe_checkpoint,
    restore,
    save_checkpoint,
    snapshot,
)
from captioning.training.checkpoint_description import NewerFormatError
from captioning.training.loop import TrainingState, replicate
from captioning.training.optimizer import build_optimizer
from cluster.config import TrainRun
from cluster.coordination.interface import CoordinatorInterface
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.data.loading import calibration_images
from cluster.data.shard_set import ShardSet
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


class FetchedCheckpoint(NamedTuple):
    """A checkpoint in a folder of this machine.

    Attributes:
        folder: folder with its files.
        description: its description if the files have been checked to be whole; None if nobody has read them yet.
    """

    folder: Path
    description: CheckpointDescription | None = None


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


def begin_attempt(
    coordinator: CoordinatorInterface, store: CheckpointStore, scratch: Path, *, world_size: int, device: torch.device
) -> tuple[Attempt, FetchedCheckpoint | None]:
    """Agree with all ranks on the attempt and on the checkpoint that it resumes from; every rank must call it.

    Args:
        coordinator: decides what counts.
        store: store of the run's checkpoints.
        scratch: temporary folder of this process, for a checkpoint from a remote store.
        world_size: number of ranks.
        device: device by which the process group exchanges objects.

    Returns:
        The attempt; and its checkpoint, found whole, on rank 0, which alone checks before all ranks agree.
    """
    workers: list[WorkerInfo] = [coordinator.worker_info()] * world_size
    if dist.is_initialized():
        dist.all_gather_object(workers, coordinator.worker_info())
    begun: list[Attempt | None] = [None]
    fetched = None
    if coordinator.rank == 0:
        begun[0], fetched = _from_whole_checkpoint(coordinator, coordinator.begin_attempt(workers), store, scratch)
    if dist.is_initialized():
        dist.broadcast_object_list(begun, device=device)
    if begun[0] is None:
        raise RuntimeError("the coordinator named no attempt; this is a fault of the program, report it")
    return begun[0], fetched


def _from_whole_checkpoint(
    coordinator: CoordinatorInterface, attempt: Attempt, store: CheckpointStore, scratch: Path
) -> tuple[Attempt, FetchedCheckpoint | None]:
    """Pass over checkpoints that are damaged."""
    while attempt.checkpoint:
        name = attempt.checkpoint.name
        try:
            folder = store.fetch(name, scratch)
            return attempt, FetchedCheckpoint(folder, describe_checkpoint(folder, for_training=True))
        except NewerFormatError:
            raise  # it is whole: nothing is wrong with it but this release
        except (ValueError, FileNotFoundError) as error:
            attempt = coordinator.reject(attempt.number, attempt.checkpoint, str(error))
            shutil.rmtree(scratch / name, ignore_errors=True)
    return attempt, None


def build_state(
    run: TrainRun, shard_set: ShardSet, fetched: FetchedCheckpoint | None, *, device: torch.device
) -> tuple[TrainingState, nn.Module]:
    """Build the model with its replica: restored from a checkpoint, or new and calibrated.

    Args:
        run: run that trains.
        shard_set: shard set of the run.
        fetched: checkpoint to restore; None for a new model.
        device: device of the model.
    """
    torch.manual_seed(run.training.seed)
    vocabulary = shard_set.vocabulary
    model = CaptionModel(run.model, vocabulary_size=len(vocabulary), load_weights=fetched is None)
    model.to(device)
    if fetched is None:
        images = calibration_images(shard_set, run.train_split, model=run.model, config=run.training)
        calibrate(model, images.to(device), run.model)
    replica = replicate(model, device)
    state = TrainingState(model, build_optimizer(model, run.optimizer))
    if fetched:
        restore(state, fetched.folder, vocabulary, description=fetched.description)
    return state, replica
