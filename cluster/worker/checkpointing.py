"""Checkpoints that are written while training goes on, and count once the coordinator has taken them."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from cluster.coordination.client import CoordinatorClient
from cluster.coordination.local import LocalCoordinator
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.data.loading import calibration_images
from cluster.data.shard_set import ShardSet
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.record import CommittedCheckpoint


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
    link: CoordinatorClient | LocalCoordinator
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


def begin_attempt(
    link: CoordinatorClient | LocalCoordinator, store: CheckpointStore, *, world_size: int, device: torch.device
) -> Attempt:
    """Agree with all ranks on the attempt and on the checkpoint that it resumes from; every rank must call it.

    Args:
        link: to the coordinator, or of a single rank.
        store: of the checkpoints.
        world_size: number of ranks.
        device: that the process group exchanges objects by.
    """
    places: list[WorkerInfo] = [link.place()] * world_size
    if dist.is_initialized():
        dist.all_gather_object(places, link.place())
    begun: list[Attempt | None] = [None]
    if link.rank == 0:
        begun = [_from_a_whole_one(link, link.begin(places), store)]
    if dist.is_initialized():
        dist.broadcast_object_list(begun, device=device)
    if begun[0] is None:
        raise RuntimeError("the coordinator named no attempt; this is a fault of the program, report it")
    return begun[0]


def _from_a_whole_one(link: CoordinatorClient | LocalCoordinator, attempt: Attempt, store: CheckpointStore) -> Attempt:
    """Pass over checkpoints that are damaged."""
    while attempt.checkpoint:
        try:
            with _fetched(store, attempt.checkpoint) as folder:
                describe_checkpoint(folder, for_training=True)
        except NewerFormatError:
            raise  # it is whole: nothing is wrong with it but this release
        except (ValueError, FileNotFoundError) as error:
            attempt = link.reject(attempt.number, attempt.checkpoint, str(error))
        else:
            break
    return attempt


@contextmanager
def _fetched(store: CheckpointStore, checkpoint: CommittedCheckpoint) -> Iterator[Path]:
    """Give a local folder with a checkpoint; a copy is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="resume-") as scratch:
        yield store.fetch(checkpoint.name, Path(scratch))


def build_state(
    run: TrainRun,
    shard_set: ShardSet,
    checkpoint: CommittedCheckpoint | None,
    *,
    store: CheckpointStore,
    device: torch.device,
) -> tuple[TrainingState, nn.Module]:
    """Build the model with its replica: restored from a checkpoint, or new and calibrated.

    Args:
        run: to train.
        shard_set: of the run.
        checkpoint: to restore.
        store: of the checkpoints.
        device: of the model.
    """
    torch.manual_seed(run.training.seed)
    vocabulary = shard_set.vocabulary
    model = CaptionModel(run.model, vocabulary_size=len(vocabulary), load_weights=checkpoint is None)
    model.to(device)
    if checkpoint is None:
        images = calibration_images(shard_set, run.train_split, model=run.model, config=run.training)
        calibrate(model, images.to(device), run.model)
    replica = replicate(model, device)
    state = TrainingState(model, build_optimizer(model, run.optimizer))
    if checkpoint:
        with _fetched(store, checkpoint) as folder:
            restore(state, folder, vocabulary)
    return state, replica
