"""How the ranks of an attempt begin: agreed on a checkpoint that is whole, with the same model on every rank."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from captioning.calibration import calibrate
from captioning.checkpoint import describe_checkpoint, restore
from captioning.description import NewerFormatError
from captioning.model import CaptionModel
from captioning.training import TrainingState, build_optimizer, replicate
from cluster.config import TrainRun
from cluster.data import ShardSet, calibration_images
from cluster.link import Link
from cluster.protocol import Attempt, Place
from cluster.runs import CommittedCheckpoint
from cluster.solo import SoloLink
from cluster.store import CheckpointStore


def begin_attempt(link: Link | SoloLink, store: CheckpointStore, *, world_size: int, device: torch.device) -> Attempt:
    """Agree with all ranks on the attempt and on the checkpoint that it resumes from; every rank must call it.

    Args:
        link: to the coordinator, or of a single rank.
        store: of the checkpoints.
        world_size: number of ranks.
        device: that the process group exchanges objects by.
    """
    places: list[Place] = [link.place()] * world_size
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


def _from_a_whole_one(link: Link | SoloLink, attempt: Attempt, store: CheckpointStore) -> Attempt:
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
