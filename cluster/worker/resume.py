"""Start of an attempt: the checkpoint that all ranks resume from, and the training state restored from it."""

import shutil
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from captioning.model.calibration import calibrate
from captioning.model.caption_model import CaptionModel
from captioning.training.checkpoint import CheckpointDescription, describe_checkpoint, restore
from captioning.training.checkpoint_description import NewerFormatError
from captioning.training.ddp import replicate
from captioning.training.loop import TrainingState
from captioning.training.optimizer import build_optimizer
from cluster.config import TrainRun
from cluster.coordination.interface import CoordinatorInterface
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.data.loading import calibration_images
from cluster.data.shard_set import ShardSet
from cluster.runs.checkpoint_store import CheckpointStore


class FetchedCheckpoint(NamedTuple):
    """A checkpoint in a folder of this machine.

    Attributes:
        folder: folder with its files.
        description: its description if the files have been checked to be whole; None if nobody has read them yet.
    """

    folder: Path
    description: CheckpointDescription | None = None


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
