"""Start of a rank: it joins an attempt, and builds the model, from the latest checkpoint if there is one."""

import logging
import tempfile
from pathlib import Path

import torch

from captioning.data.vocabulary import Vocabulary
from captioning.training.loop import num_cross_entropy_steps, num_training_steps
from cluster.coordination.interface import CoordinatorInterface
from cluster.coordination.messages import WorkerConfig
from cluster.data.shard_set import ShardSet
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.record import store_of
from cluster.worker.checkpointing import BackgroundWriter, CheckpointSaver
from cluster.worker.rank import Rank, RankContext
from cluster.worker.reporting import StepReporter
from cluster.worker.resume import FetchedCheckpoint, begin_attempt, build_state
from cluster.worker.validation import Validator

logger = logging.getLogger(__name__)


def start_rank(config: WorkerConfig, coordinator: CoordinatorInterface, context: RankContext) -> Rank:
    """Begin or join an attempt, and build the model, from the latest checkpoint if there is one.

    Every rank must call it. It also sets the number of torch's threads in this process.

    Args:
        config: configuration, the same on every rank.
        coordinator: coordinator that begins attempts and commits checkpoints.
        context: environment of this rank.
    """
    run, ranks = config.run, (coordinator.rank, context.world_size)
    torch.set_num_threads(run.cluster.cpus_per_worker)
    store = store_of(run.folder, run.storage.checkpoints)
    if config.claim and coordinator.rank == 0:
        config.claim.require()
    with tempfile.TemporaryDirectory(prefix="resume-") as scratch:
        attempt, fetched = begin_attempt(
            coordinator, store, Path(scratch), world_size=context.world_size, device=context.device
        )
        coordinator.join_attempt(attempt)
        shard_set = ShardSet(run.shards_folder(), run.features, cache_gib=run.storage.cache_gib)
        if attempt.checkpoint and not fetched:
            fetched = FetchedCheckpoint(store.fetch(attempt.checkpoint.name, Path(scratch)))
        state, replica = build_state(run, shard_set, fetched, device=context.device, arithmetic=attempt.arithmetic)
    num_samples = shard_set.manifest.splits[run.train_split]
    rank = Rank(
        config=config,
        context=context,
        coordinator=coordinator,
        attempt=attempt,
        shard_set=shard_set,
        num_steps=num_training_steps(run.training, num_samples),
        switch_step=num_cross_entropy_steps(run.training, num_samples),
        checkpoint_every=run.training.checkpoint_every_steps or max(1, round(num_samples / run.training.batch_size)),
        state=state,
        replica=replica,
        saver=_saver(config, coordinator, store, attempt.number, shard_set.vocabulary),
        history=attempt.history,
        reporter=StepReporter(run, coordinator, num_samples=num_samples),
        validator=Validator(
            run=run,
            shard_set=shard_set,
            ranks=ranks,
            device=context.device,
            heartbeat=lambda: coordinator.heartbeat(state.step),
            keeps_captions=context.keeps_captions,
        ),
    )
    logger.info("starting attempt %d, world size %d, device %s", attempt.number, context.world_size, context.device)
    return rank


def _saver(
    config: WorkerConfig,
    coordinator: CoordinatorInterface,
    store: CheckpointStore,
    attempt: int,
    vocabulary: Vocabulary,
) -> CheckpointSaver:
    text, claim = config.config_text, config.claim
    return CheckpointSaver(store, coordinator, attempt, vocabulary, text, BackgroundWriter(), claim)
