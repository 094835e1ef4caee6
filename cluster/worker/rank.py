"""One rank of a training run: its share of every batch, its validation, its checkpoints; whoever started it."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from captioning.data.batches import CaptionBatch
from captioning.training.bad_samples import BadSampleError
from captioning.training.checkpoint import CheckpointDescription
from captioning.training.collectives import Flags
from captioning.training.loop import StepResult, num_training_steps, train
from cluster.config import TrainRun
from cluster.coordination.client import CoordinatorClient
from cluster.coordination.local import LocalCoordinator
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.runs.record import VALIDATION_LOSS, store_of
from cluster.runs.sample_ledger import Ledger, noted
from cluster.worker.checkpointing import BackgroundWriter, Saver, begin_attempt, build_state
from cluster.worker.reporting import StepReporter
from cluster.worker.validation import Validator

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 5.0


class Preempted(Exception):  # noqa: N818  it is no error
    """A node of this run is about to be taken away; the state is on disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """What every rank is told."""

    run: TrainRun
    coordinator: Any
    """Ray's handle of the run's coordinator."""
    config_text: str
    """The resolved configuration, YAML."""
    lineage: dict[str, str]
    """Digests, commit and run id, kept with every checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankContext:
    """Where a rank trains, and what those who started it offer; by default a process of its own."""

    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    is_preempted: Callable[[], bool] = lambda: False
    """Whether a node is about to be taken away; every rank asks at the same step."""
    score_async: Callable[[int, Future[None] | None], None] = lambda step, committed: None
    """Has the checkpoint of a step scored beside training once it counts; every rank calls it."""


class Rank:
    """This process: its place in the group, the model, and what it reads.

    Args:
        task: what every rank is told.
        link: to whoever decides what counts.
        surroundings: of this process.
    """

    def __init__(self, task: WorkerConfig, link: CoordinatorClient | LocalCoordinator, context: RankContext) -> None:
        self.task, self.run, self.link = task, task.run, link
        self.rank, self.world_size, self.device = link.rank, context.world_size, context.device
        self._surroundings = context
        torch.set_num_threads(self.run.cluster.cpus_per_worker)
        store = store_of(self.run.folder, self.run.storage.checkpoints)
        self.attempt = begin_attempt(link, store, world_size=self.world_size, device=self.device)
        link.start(self.attempt.number)
        self.shard_set = ShardSet(self.run.shards_folder(), self.run.features, cache_gib=self.run.storage.cache_gib)
        num_samples = self.shard_set.manifest.splits[self.run.train_split]
        self.num_steps = num_training_steps(self.run.training, num_samples)
        per_epoch = max(1, round(num_samples / self.run.training.batch_size))
        self.checkpoint_every = self.run.training.checkpoint_every_steps or per_epoch
        self.state, self.replica = build_state(
            self.run, self.shard_set, self.attempt.checkpoint, store=store, device=self.device
        )
        link.step = self.state.step
        self.saver = Saver(
            store, link, self.attempt.number, self.shard_set.vocabulary, task.config_text, BackgroundWriter()
        )
        self.is_scored_beside = self.run.validation.where == "beside"
        self._looked_at = time.monotonic()
        self._reporter = StepReporter(self.run, link, num_samples=num_samples)
        self._validator = Validator(
            run=self.run,
            shard_set=self.shard_set,
            ranks=(self.rank, self.world_size),
            device=self.device,
            get_on=link.get_on,
        )
        logger.info("begins attempt %d, one of %d ranks, on %s", self.attempt.number, self.world_size, self.device)

    def train(self) -> None:
        """Train to the end, or until the run is to stop.

        Raises:
            BadSampleError, FloatingPointError: on every rank alike, with the last checkpoint written to its end.
        """
        for _ in self.validations():
            pass

    def validations(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Train to the end, or until the run is to stop; yield step and scores after every validation here.

        The checkpoint of a yielded step is under way; ``saver.writer.wait`` waits until it counts.

        Raises:
            BadSampleError, FloatingPointError: as ``train`` does.
        """
        try:
            yield from self._validations()
        except (BadSampleError, FloatingPointError):
            self.saver.writer.wait()
            _meet()
            raise

    def _validations(self) -> Iterator[tuple[int, dict[str, float]]]:
        yield from self._score_where_it_stopped()
        for result in self._results():
            self.link.step = result.step
            self.link.get_on()
            self.saver.writer.check()
            is_due = self._is_due(result.step)
            leaves = result.flags.check_preemption and self._surroundings.is_preempted()
            at_once = result.flags.checkpoint or leaves
            is_validated = is_due and not at_once and not self.is_scored_beside
            metrics = self._validator.score(self.state.model) if is_validated else {}
            self._reporter.report(result, metrics, stall_seconds=self.saver.writer.stall_seconds)
            if is_due or at_once:
                self._save(metrics, awaits_score=is_due and self.is_scored_beside)
            if metrics:
                yield result.step, metrics
            if leaves:
                self._make_room()
            if result.flags.stop:
                break
        self.saver.writer.wait()
        self._reporter.end(stall_seconds=self.saver.writer.stall_seconds)
        logger.info("ends")
        if self.rank == 0:
            self.link.note_stopped()

    def _is_due(self, step: int) -> bool:
        return step % self.checkpoint_every == 0 or step == self.num_steps

    def _score_where_it_stopped(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Validate a checkpoint that was written in haste at a step where a validation was due."""
        checkpoint = self.attempt.checkpoint
        if not checkpoint or not self._is_due(checkpoint.step) or VALIDATION_LOSS in checkpoint.metrics:
            return
        if self.is_scored_beside:
            self._announce_again(checkpoint.step)
            return
        metrics = self._validator.score(self.state.model)
        if self.rank == 0:
            self.link.add_score(checkpoint.step, metrics)
        yield checkpoint.step, metrics

    def _announce_again(self, step: int) -> None:
        """Have a checkpoint scored that counts already."""
        committed: Future[None] | None = None
        if self.rank == 0:
            self.link.await_score(step)
            committed = Future()
            committed.set_result(None)
        self._surroundings.score_async(step, committed)

    def _results(self) -> Iterator[StepResult]:
        """Train, yielding after every step."""
        batches = training_batches(
            self.shard_set,
            self.run.train_split,
            model=self.run.model,
            config=self.run.training,
            ranks=(self.rank, self.world_size),
            steps=range(self.state.step, self.num_steps),
            num_loader_processes=self.run.cluster.num_loader_processes,
        )
        return train(
            self.state,
            self.replica,
            self._noted(batches) if self.run.storage.ledger else batches,
            optimizer_config=self.run.optimizer,
            config=self.run.training,
            num_steps=self.num_steps,
            device=self.device,
            flags=self._wishes,
        )

    def _noted(self, batches: Iterable[Sequence[CaptionBatch]]) -> Iterator[Sequence[CaptionBatch]]:
        ledger = Ledger(
            self.run.folder / "ledger", attempt=self.attempt.number, rank=self.rank, resumed_at=self.state.step
        )
        return noted(batches, ledger, first_step=self.state.step + 1)

    def _wishes(self) -> Flags:
        """Ask all ranks for what the coordinator wants, and now and then to look whether a node is about to go."""
        if self.rank != 0:
            return Flags()
        wishes = self.link.wishes()
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_SECONDS:
            return wishes
        self._looked_at = now
        return wishes._replace(check_preemption=True)

    def _make_room(self) -> None:
        """End this attempt with its state on disk, because a node is about to go."""
        self.saver.writer.wait()
        if self.rank == 0:
            self.link.leave("preemption")
        _meet()
        raise Preempted

    def _save(self, metrics: dict[str, float], *, awaits_score: bool) -> None:
        logger.info("checkpoint%s", "".join(f", {name} {value:.4f}" for name, value in metrics.items()))
        committed = self._write(metrics, awaits_score=awaits_score) if self.rank == 0 else None
        if awaits_score:
            self._surroundings.score_async(self.state.step, committed)

    def _write(self, metrics: dict[str, float], *, awaits_score: bool) -> Future[None]:
        description = CheckpointDescription(
            step=self.state.step,
            model=self.run.model,
            vocabulary_digest=self.shard_set.vocabulary.digest,
            max_caption_words=self.run.training.max_caption_words,
            lineage=self.task.lineage,
            metrics=metrics,
        )
        return self.saver.save(self.state, description, awaits_score=awaits_score)


def _meet() -> None:
    """Wait for all ranks: the first one that raises ends the group, and with it what rank 0 writes."""
    if dist.is_initialized():
        dist.barrier()
