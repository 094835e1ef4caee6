"""One rank of a training run: trains on its share of every batch, validates and writes checkpoints.

The code is the same in a Ray Train worker and in a trial that trains in its own process.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from captioning.config import OptimizerConfig, TrainingConfig
from captioning.evaluation.health import scores_of
from captioning.training.bad_samples import BadSampleError
from captioning.training.checkpoint_description import CheckpointDescription
from captioning.training.collectives import Flags
from captioning.training.loop import StepResult, TrainingState, train
from captioning.training.self_critical import phase_optimizer, phase_training
from cluster.config import TrainRun
from cluster.coordination.interface import CoordinatorInterface
from cluster.coordination.messages import Attempt, WorkerConfig, metrics_text
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.runs.sample_ledger import SampleLedger, record_samples
from cluster.runs.score_history import LAST_VALIDATION_LOSS, VALIDATION_LOSS, ScoreHistory
from cluster.worker.checkpointing import CheckpointSaver
from cluster.worker.reporting import StepReporter
from cluster.worker.self_critical import critic_of, start_from_best
from cluster.worker.validation import Validator

logger = logging.getLogger(__name__)

_CHECK_PREEMPTION_SECONDS = 5.0


class Preempted(Exception):  # noqa: N818  it is no error
    """A node of this run is about to be preempted; the state is on disk."""


class Validation(NamedTuple):
    """Validation scores of the model after a step, by name."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankContext:
    """Environment of a rank, as its launcher provides it; the defaults suit a run in a single process."""

    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    keeps_captions: bool = True
    """Whether the run's folder keeps the captions of a few images at each validation, for the page of the run."""
    is_preempted: Callable[[], bool] = lambda: False
    """Function that returns whether a node is about to be preempted; every rank calls it at the same step."""
    score_async: Callable[[int, Future[None] | None], None] = lambda step, committed: None
    """Function that starts a validation task for the checkpoint of a step once it is committed; every rank calls it."""


@dataclass(kw_only=True, slots=True)
class Rank:
    """State of one rank: its place in the group, the model, and the objects that it works with.

    Made by ``start.start_rank``.
    """

    config: WorkerConfig
    context: RankContext
    coordinator: CoordinatorInterface
    attempt: Attempt
    shard_set: ShardSet
    num_steps: int
    """Number of steps of the whole training."""
    switch_step: int
    """Number of steps by captions of people; those that follow are self-critical."""
    checkpoint_every: int
    """Number of steps between two validations and checkpoints."""
    state: TrainingState
    replica: nn.Module
    """Model wrapped in DDP by ``replicate``."""
    saver: CheckpointSaver
    reporter: StepReporter
    validator: Validator
    history: ScoreHistory
    """Validations of the run from its best one on."""
    _preemption_checked_at: float = field(default_factory=time.monotonic)
    _is_stopped: bool = False

    @property
    def run(self) -> TrainRun:
        """Return the settings of the run."""
        return self.config.run

    @property
    def is_first(self) -> bool:
        """Return whether this is rank 0, the only one that writes."""
        return self.coordinator.rank == 0

    @property
    def is_scored_async(self) -> bool:
        """Return whether separate tasks validate, instead of the ranks."""
        return self.run.validation.where == "beside"

    def train(self) -> Iterator[Validation]:
        """Train to the last step, or until a stop is requested or the score no longer improves; yield each validation.

        The checkpoint of a yielded step may still be being written; ``saver.writer.wait`` waits until it is committed.

        Raises:
            BadSampleError, FloatingPointError: raised on every rank, after the last checkpoint is written.
            Preempted: a node is about to be preempted; raised on every rank, after the state is written.
        """
        try:
            if validation := self._validate_resumed():
                yield validation
            for result in () if self._stop_reason() else self._steps():
                self.coordinator.heartbeat(result.step)
                self._is_stopped = result.flags.stop
                self.saver.writer.check()
                # The flags are all-reduced with the step, so every rank takes the same branches below.
                is_preempted = result.flags.check_preemption and self.context.is_preempted()
                is_due, is_urgent = self._is_due(result.step), result.flags.checkpoint or is_preempted
                # An urgent checkpoint does not wait for a validation; it follows, at the latest in the next attempt.
                is_validated = is_due and not is_urgent and not self.is_scored_async
                metrics = self._score(result.step) if is_validated else {}
                self.reporter.report(result, metrics, stall_seconds=self.saver.writer.stall_seconds)
                if is_due or is_urgent:
                    self._save(metrics, awaits_score=is_due and self.is_scored_async)
                if is_preempted:
                    self.saver.writer.wait()
                    raise Preempted
                if is_due and is_urgent and not result.flags.stop and not self.is_scored_async:
                    metrics = self._validate_committed(result.step)
                if metrics:
                    yield self._validated(result.step, metrics)
                if self._stop_reason():
                    break
            self._end()
        except (BadSampleError, FloatingPointError):
            self.saver.writer.wait()
            wait_for_all()
            raise

    def _end(self) -> None:
        self.saver.writer.wait()
        self.reporter.end(stall_seconds=self.saver.writer.stall_seconds)
        logger.info("training ended")
        if self.is_first:
            self.coordinator.end_training(self._stop_reason())

    def _score(self, step: int) -> dict[str, float]:
        """Score the weights of a checkpoint; if they are averaged, return the loss of those of the last step beside."""
        model, average = self.state.model, self.state.average
        if average is None:
            return self.validator.score(model, step=step)
        last = self.validator.loss(model)
        with average.applied():
            return self.validator.score(model, step=step) | {LAST_VALIDATION_LOSS: last}

    def _validated(self, step: int, metrics: dict[str, float]) -> Validation:
        self.history = self.history.add(step, metrics[self.run.validation.best_by])
        return Validation(step, metrics)

    def _stop_reason(self) -> str:
        """Return why training stops before the last step; the same on every rank.

        It never stops in the steps before self-critical training, in which scores rise again.
        """
        step, last = self.state.step, self.num_steps
        is_early = step < last and not step <= self.switch_step < last
        return self.history.stop_reason(self.run.validation.stop_after) if is_early else ""

    def _is_due(self, step: int) -> bool:
        return step % self.checkpoint_every == 0 or step in (self.switch_step, self.num_steps)

    def _validate_resumed(self) -> Validation | None:
        """Validate the checkpoint that this attempt resumes from, if its own validation was skipped."""
        checkpoint = self.attempt.checkpoint
        if not checkpoint or not self._is_due(checkpoint.step) or VALIDATION_LOSS in checkpoint.metrics:
            return None
        if self.is_scored_async:
            self._score_committed(checkpoint.step)
            return None
        return self._validated(checkpoint.step, self._validate_committed(checkpoint.step))

    def _validate_committed(self, step: int) -> dict[str, float]:
        """Validate the model after its checkpoint of this step was written in haste."""
        self.saver.writer.wait()
        metrics = self._score(step)
        if self.is_first:
            self.coordinator.add_score(step, metrics)
        return metrics

    def _score_committed(self, step: int) -> None:
        """Start a validation task for a checkpoint that is committed already."""
        committed: Future[None] | None = None
        if self.is_first:
            self.coordinator.await_score(step)
            committed = Future()
            committed.set_result(None)
        self.context.score_async(step, committed)

    def _steps(self) -> Iterator[StepResult]:
        """Return an iterator that takes one step per result, through all phases of the training."""
        return chain.from_iterable(self._phases())

    def _phases(self) -> Iterator[Iterator[StepResult]]:
        """Yield the steps by captions of people, and then those of self-critical training."""
        run = self.run
        if self.state.step < self.switch_step:
            yield self._train(run.optimizer, run.training, last_step=self.switch_step)
        if self.switch_step <= self.state.step < self.num_steps and not self._is_stopped:
            self._begin_self_critical()
            yield self._train(
                phase_optimizer(run.optimizer, run.training), phase_training(run.training), last_step=self.num_steps
            )

    def _begin_self_critical(self) -> None:
        """Prepare self-critical training; at its first step, load the weights of the best checkpoint so far."""
        if self.state.step == self.switch_step:
            self.saver.writer.wait()
            self.history = self.history.from_best()
            start_from_best(self.state, self.coordinator, self.attempt, self.saver.store, run=self.run)
        heartbeat, device = self.validator.heartbeat, self.context.device
        critic = critic_of(self.state, self.shard_set, self.run, device=device, heartbeat=heartbeat)
        self.state.resample = critic.resample

    def _train(self, optimizer: OptimizerConfig, config: TrainingConfig, *, last_step: int) -> Iterator[StepResult]:
        """Return a generator that takes one step per result, up to a last step."""
        batches = training_batches(
            self.shard_set,
            self.run.train_split,
            model=self.run.model,
            config=self.run.training,
            ranks=(self.coordinator.rank, self.context.world_size),
            steps=range(self.state.step, last_step),
            num_loader_processes=self.run.cluster.num_loader_processes,
            num_cpus=self.run.cluster.cpus_per_worker,
            say=self.coordinator.log_event if self.is_first else logger.info,
        )
        if self.run.storage.ledger:
            batches = record_samples(batches, self._open_ledger(), first_step=self.state.step + 1)
        return train(
            self.state,
            self.replica,
            batches,
            optimizer_config=optimizer,
            config=config,
            num_steps=last_step,
            device=self.context.device,
            flags=self._flags,
        )

    def _open_ledger(self) -> SampleLedger:
        return SampleLedger(
            self.run.folder / "ledger",
            attempt=self.attempt.number,
            rank=self.coordinator.rank,
            resumed_at=self.state.step,
        )

    def _flags(self) -> Flags:
        """Return the coordinator's requests; every few seconds, also request all ranks to check for a preemption."""
        if not self.is_first:
            return Flags()
        flags, now = self.coordinator.requests(), time.monotonic()
        if now - self._preemption_checked_at < _CHECK_PREEMPTION_SECONDS:
            return flags
        self._preemption_checked_at = now
        return flags._replace(check_preemption=True)

    def _save(self, metrics: dict[str, float], *, awaits_score: bool) -> None:
        logger.info("writing a checkpoint%s%s", ": " if metrics else "", metrics_text(scores_of(metrics)))
        committed = self._write(metrics, awaits_score=awaits_score) if self.is_first else None
        if awaits_score:
            self.context.score_async(self.state.step, committed)

    def _write(self, metrics: dict[str, float], *, awaits_score: bool) -> Future[None]:
        description = CheckpointDescription(
            step=self.state.step,
            model=self.run.model,
            vocabulary_digest=self.shard_set.vocabulary.digest,
            max_caption_words=self.run.training.max_caption_words,
            lineage=self.config.lineage,
            metrics=scores_of(metrics),
        )
        return self.saver.save(self.state, description, metrics=metrics, awaits_score=awaits_score)


def wait_for_all() -> None:
    """Wait for all ranks: Ray Train ends the group when the first rank raises, even while rank 0 still writes."""
    if dist.is_initialized():
        dist.barrier()
