"""Start of self-critical training on a rank: the weights of the best checkpoint so far, and the reward."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from captioning.training.checkpoint import restore_weights
from captioning.training.loop import TrainingState
from captioning.training.optimizer import build_optimizer
from captioning.training.self_critical import SelfCritic, phase_optimizer
from cluster.config import TrainRun
from cluster.coordination.interface import CoordinatorInterface
from cluster.coordination.messages import Attempt
from cluster.data.document_frequencies import document_frequencies
from cluster.data.shard_set import ShardSet
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.record import CommittedCheckpoint
from cluster.worker.resume import fetch_whole


def critic_of(
    state: TrainingState, shard_set: ShardSet, run: TrainRun, *, device: torch.device, heartbeat: Callable[[], None]
) -> SelfCritic:
    """Return what samples and rewards the captions of a run's batches.

    Args:
        state: training state of the bare model.
        shard_set: shard set that the run trains on.
        run: settings of the run.
        device: device of the model.
        heartbeat: function that is called for every image while n-grams are counted.
    """
    frequencies = document_frequencies(
        shard_set,
        run.train_split,
        max_words=run.training.max_caption_words,
        home=run.storage.home,
        heartbeat=heartbeat,
    )
    return SelfCritic(state.model, frequencies, config=run.training, device=device)


def start_from_best(
    state: TrainingState, coordinator: CoordinatorInterface, attempt: Attempt, store: CheckpointStore, *, run: TrainRun
) -> None:
    """Load the weights of the best checkpoint so far, with a new optimizer, for self-critical training.

    Every rank must call it, after all checkpoints so far are committed.

    Args:
        state: training state, changed in place.
        coordinator: coordinator that knows the best checkpoint.
        attempt: the current attempt.
        store: store of the run's checkpoints.
        run: settings of the run.
    """

    def reject(checkpoint: CommittedCheckpoint, reason: str) -> CommittedCheckpoint:
        coordinator.reject(attempt.number, checkpoint, reason)
        return coordinator.begin_self_critical()

    with tempfile.TemporaryDirectory(prefix="best-") as scratch:
        name, fetched = [""], None
        if coordinator.rank == 0:
            fetched = fetch_whole(coordinator.begin_self_critical(), store, Path(scratch), reject=reject)
            name = [fetched.folder.name if fetched else ""]
        if dist.is_initialized():
            dist.broadcast_object_list(name, device=next(state.model.parameters()).device)
        restore_weights(state.model, fetched.folder if fetched else store.fetch(name[0], Path(scratch)))
    if state.average:
        state.average.restart()
    state.optimizer = build_optimizer(state.model, phase_optimizer(run.optimizer, run.training))
