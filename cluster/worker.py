"""The loop that Ray Train runs on every rank."""

import time
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from captioning.calibration import calibrate
from captioning.checkpoint import CheckpointDescription, restore, save_checkpoint
from captioning.model import CaptionModel
from captioning.training import (
    Flags,
    StepResult,
    TrainingState,
    build_optimizer,
    num_training_steps,
    replicate,
    train,
    validation_loss,
)
from cluster.config import TrainRun
from cluster.coordinator import Attempt
from cluster.data import ShardSet, calibration_images, training_batches, validation_batches
from cluster.runs import VALIDATION_LOSS, CommittedCheckpoint, checkpoint_folder

_LONGEST_REASON = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerTask:
    """What every rank is told."""

    run: TrainRun
    coordinator: Any
    """Ray's handle of the run's coordinator."""
    config_text: str
    """The resolved configuration, YAML."""
    lineage: dict[str, str]
    """Digests, commit and run id, kept with every checkpoint."""


class _Rank:
    """This process: its place in the group, the model, and what it reads."""

    def __init__(self, task: WorkerTask) -> None:
        self.task, self.run = task, task.run
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        torch.set_num_threads(self.run.cluster.cpus_per_worker)
        self.attempt = self._begin_attempt()
        self.shard_set = ShardSet(self.run.shards_folder())
        num_samples = self.shard_set.manifest.splits[self.run.train_split]
        self.num_steps = num_training_steps(self.run.training, num_samples)
        per_epoch = max(1, round(num_samples / self.run.training.batch_size))
        self.checkpoint_every = self.run.training.checkpoint_every_steps or per_epoch
        torch.manual_seed(self.run.training.seed)
        has_checkpoint = self.attempt.checkpoint is not None
        vocabulary_size = len(self.shard_set.vocabulary)
        model = CaptionModel(self.run.model, vocabulary_size=vocabulary_size, load_weights=not has_checkpoint)
        model.to(self.device)
        if not has_checkpoint:
            images = calibration_images(
                self.shard_set, self.run.train_split, model=self.run.model, config=self.run.training
            )
            calibrate(model, images.to(self.device), self.run.model)
        self.replica = replicate(model, self.device)
        self.state = TrainingState(model, build_optimizer(model, self.run.optimizer))
        if self.attempt.checkpoint:
            folder = checkpoint_folder(self.run.folder, self.attempt.checkpoint)
            restore(self.state, folder, self.shard_set.vocabulary)

    def _begin_attempt(self) -> Attempt:
        begun: list[Attempt | None] = [None]
        if self.rank == 0:
            begun = [ray.get(self.task.coordinator.begin_attempt.remote())]
        if dist.is_initialized():
            dist.broadcast_object_list(begun, device=self.device)
        if begun[0] is None:
            raise RuntimeError("the coordinator named no attempt; this is a fault of the program, report it")
        return begun[0]

    def results(self) -> Any:  # noqa: ANN401  an iterator of StepResult
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
            batches,
            optimizer_config=self.run.optimizer,
            config=self.run.training,
            num_steps=self.num_steps,
            device=self.device,
            ask=Flags,
        )

    def validate(self) -> float:
        """Return the validation loss in nats, over all ranks."""
        batches = validation_batches(
            self.shard_set,
            self.run.validation_split,
            model=self.run.model,
            config=self.run.training,
            ranks=(self.rank, self.world_size),
            num_loader_processes=self.run.cluster.num_loader_processes,
        )
        return validation_loss(self.state.model, batches, config=self.run.training, device=self.device)

    def add_row(self, result: StepResult, seconds: float, **metrics: float) -> None:
        """Hand a step's metrics to the coordinator, without waiting for it."""
        if self.rank == 0:
            row = {
                "train_loss_nats": result.loss_nats,
                "gradient_norm": result.gradient_norm,
                "learning_rate": result.learning_rate,
                "images_per_second": result.num_images / seconds,
                "epoch": result.step
                * self.run.training.batch_size
                / self.shard_set.manifest.splits[self.run.train_split],
                **metrics,
            }
            self.task.coordinator.add_row.remote(self.attempt.number, result.step, row)

    def checkpoint(self, validation_loss_nats: float) -> None:
        """Write a checkpoint, make it count, and tell Ray; a barrier that every rank must reach."""
        metrics = {VALIDATION_LOSS: validation_loss_nats}
        if self.rank == 0:
            self._write_checkpoint(metrics)
            ray.get(self.task.coordinator.commit.remote(self.attempt.number, self.state.step, metrics))
        # Ray is told that there is progress, and not where the checkpoint lies: which one counts is run.json's to say.
        ray.train.report({"step": self.state.step, **metrics})

    def _write_checkpoint(self, metrics: dict[str, float]) -> None:
        checkpoint = CommittedCheckpoint(step=self.state.step, attempt=self.attempt.number, metrics=metrics)
        folder = checkpoint_folder(self.run.folder, checkpoint)
        description = CheckpointDescription(
            step=self.state.step,
            model=self.run.model,
            vocabulary_digest=self.shard_set.vocabulary.digest,
            max_caption_words=self.run.training.max_caption_words,
            lineage=self.task.lineage,
            metrics=metrics,
        )
        save_checkpoint(
            folder, self.state, self.shard_set.vocabulary, description=description, config=self.task.config_text
        )


def train_worker(loop_config: dict[str, WorkerTask]) -> None:
    """Train this rank's share of every batch, from the last checkpoint that counts to the end."""
    task = loop_config["task"]
    try:
        _train(_Rank(task))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        rank = ray.train.get_context().get_world_rank()
        ray.get(task.coordinator.add_failure.remote(rank, reason[:_LONGEST_REASON]))
        raise


def _train(rank: _Rank) -> None:
    started = time.monotonic()
    for result in rank.results():
        seconds = time.monotonic() - started
        if result.step % rank.checkpoint_every and result.step < rank.num_steps and not result.flags.checkpoint:
            rank.add_row(result, seconds)
        else:
            validation_loss_nats = rank.validate()
            rank.add_row(result, seconds, **{VALIDATION_LOSS: validation_loss_nats})
            rank.checkpoint(validation_loss_nats)
        started = time.monotonic()
