"""Start of an attempt: choose the checkpoint that all ranks resume from, and restore the training state."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from captioning.config import NEWEST_ARITHMETIC
from captioning.model.calibration import calibrate
from captioning.model.caption_model import CaptionModel
from captioning.training.averaging import WeightAverage
from captioning.training.checkpoint import restore
from captioning.training.checkpoint_description import CheckpointDescription, NewerFormatError, describe_checkpoint
from captioning.training.ddp import replicate
from captioning.training.loop import TrainingState
from captioning.training.optimizer import build_optimizer
from cluster.config import TrainRun
from cluster.coordination.interface import CoordinatorInterface
from cluster.coordination.messages import Attempt, WorkerInfo
from cluster.data.loading import calibration_images
from cluster.data.shard_set import ShardSet
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.record import CommittedCheckpoint


class FetchedCheckpoint(NamedTuple):
    """A checkpoint in a folder on this machine.

    Attributes:
        folder: folder with the checkpoint's files.
        description: description of the checkpoint once its files are verified; None before.
    """

    folder: Path
    description: CheckpointDescription | None = None


def begin_attempt(
    coordinator: CoordinatorInterface, store: CheckpointStore, scratch: Path, *, world_size: int, device: torch.device
) -> tuple[Attempt, FetchedCheckpoint | None]:
    """Agree with all ranks on the attempt and the checkpoint to resume from; every rank must call it.

    Args:
        coordinator: coordinator that begins the attempt.
        store: store of the run's checkpoints.
        scratch: temporary folder of this process, for a checkpoint from a remote store.
        world_size: number of ranks.
        device: device through which the process group broadcasts objects.

    Returns:
        The attempt, and, on rank 0, its verified checkpoint; None on the other ranks and without a checkpoint.
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
        raise RuntimeError("rank 0 broadcast no attempt; this is a bug in captioning, report it")
    return begun[0], fetched


def _from_whole_checkpoint(
    coordinator: CoordinatorInterface, attempt: Attempt, store: CheckpointStore, scratch: Path
) -> tuple[Attempt, FetchedCheckpoint | None]:
    """Fetch and verify the attempt's checkpoint; reject damaged ones until an intact one or none is left."""

    def reject(checkpoint: CommittedCheckpoint, reason: str) -> CommittedCheckpoint | None:
        nonlocal attempt
        attempt = coordinator.reject(attempt.number, checkpoint, reason)
        return attempt.checkpoint

    fetched = fetch_whole(attempt.checkpoint, store, scratch, reject=reject)
    return attempt, fetched


def fetch_whole(
    checkpoint: CommittedCheckpoint | None,
    store: CheckpointStore,
    scratch: Path,
    *,
    reject: Callable[[CommittedCheckpoint, str], CommittedCheckpoint | None],
) -> FetchedCheckpoint | None:
    """Fetch and verify a checkpoint, or the next one if it is damaged; return None if there is none.

    Args:
        checkpoint: checkpoint to fetch; None for none.
        store: store of the run's checkpoints.
        scratch: temporary folder of this process, for a checkpoint from a remote store.
        reject: function that is given a damaged checkpoint and the reason, and returns the next one.
    """
    while checkpoint:
        try:
            folder = store.fetch(checkpoint.name, scratch)
            return FetchedCheckpoint(folder, describe_checkpoint(folder, for_training=True))
        except NewerFormatError:
            raise  # intact, but written by a newer release: not a reason to train from an older one
        except (ValueError, FileNotFoundError) as error:
            damaged, checkpoint = checkpoint, reject(checkpoint, str(error))
            shutil.rmtree(scratch / damaged.name, ignore_errors=True)
    return None


def build_state(
    run: TrainRun,
    shard_set: ShardSet,
    fetched: FetchedCheckpoint | None,
    *,
    device: torch.device,
    arithmetic: int = NEWEST_ARITHMETIC,
) -> tuple[TrainingState, nn.Module]:
    """Build the model and its DDP replica: restored from a checkpoint, or new and calibrated.

    Args:
        run: settings of the run.
        shard_set: shard set that the run trains on.
        fetched: checkpoint to restore; None for a new model.
        device: device of the model.
        arithmetic: version of the order of computation with which the run began.

    Returns:
        The training state of the bare model, and the replica.
    """
    torch.manual_seed(run.training.seed)
    vocabulary = shard_set.vocabulary
    model = CaptionModel(run.model, vocabulary_size=len(vocabulary), load_weights=fetched is None)
    model.to(device)
    if fetched is None:
        images = calibration_images(shard_set, run.train_split, model=run.model, config=run.training)
        calibrate(model, images.to(device), run.model)
    replica = replicate(model, device, arithmetic=arithmetic)
    average = WeightAverage(model, run.training.ema_decay) if run.training.ema_decay else None
    state = TrainingState(model, build_optimizer(model, run.optimizer), arithmetic=arithmetic, average=average)
    if fetched:
        restore(state, fetched.folder, vocabulary, description=fetched.description)
    if arithmetic > 1 and not run.features:
        model.encoder.fold(run.training.precision)
    return state, replica
