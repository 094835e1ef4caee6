"""Overhead of checkpoints and tracking: time that training spends inside their calls, as a share of the wall time.

Trains on synthetic scenes in this process, with the coordinator, its journal and an MLflow database as in any run, and
logs one row of metrics per step. The peer is the common approach: ``torch.save`` of the whole state in the loop, and
``MlflowClient.log_batch`` in every step, measured over the same steps of the same model in the same process.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import Metric

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.model.caption_model import CaptionModel
from captioning.training.checkpoint_description import CheckpointDescription
from captioning.training.loop import TrainingState, train
from captioning.training.optimizer import build_optimizer
from cluster.config import ClusterConfig, StorageConfig, TrackingConfig, TrainRun
from cluster.coordination.client import CoordinatorClient
from cluster.coordination.messages import CoordinatorSettings, WorkerInfo
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.resources.session import cluster_session
from cluster.runs.record import store_of
from cluster.tracking.client import tracking_uri
from cluster.training.driver import start_coordinator
from cluster.training.start import start_record
from cluster.worker.checkpointing import BackgroundWriter, CheckpointSaver
from tests.benchmarks.measuring import Benchmark, Row
from tests.support.drawn_shards import draw_shards

_LOSS = "train_loss_nats"


class Stopwatch:
    """Collects the durations of calls, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the duration of the ``with`` block."""
        started = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - started)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained.

    Attributes:
        steps: training steps of each measurement.
        checkpoint_every: steps between checkpoints.
        backbone: torchvision model, with random weights, of which layer4 is trained.
        batch_size: images per step.
        image_size: side of an image, in pixels.
    """

    steps: int
    checkpoint_every: int
    backbone: str
    batch_size: int
    image_size: int


def run_of(settings: Settings, folder: Path, shards: Path) -> TrainRun:
    """Return the run to measure."""
    return TrainRun(
        name="overheads",
        shards=shards,
        model=ModelConfig(
            backbone=settings.backbone, weights="none", trainable_from="layer4", image_size_px=settings.image_size
        ),
        optimizer=OptimizerConfig(warmup_steps=10),
        training=TrainingConfig(num_epochs=1000, batch_size=settings.batch_size),
        storage=StorageConfig(home=folder / "home"),
    )


def steps_of(run: TrainRun, shard_set: ShardSet, num_steps: int) -> tuple[TrainingState, Iterator]:
    """Return a fresh state and its training steps."""
    torch.manual_seed(0)
    model = CaptionModel(run.model, vocabulary_size=len(shard_set.vocabulary))
    state = TrainingState(model, build_optimizer(model, run.optimizer))
    batches = training_batches(
        shard_set, "train", model=run.model, config=run.training, ranks=(0, 1), steps=range(num_steps)
    )
    results = train(
        state,
        model,
        batches,
        optimizer_config=run.optimizer,
        config=run.training,
        num_steps=num_steps,
        device=torch.device("cpu"),
    )
    return state, results


def timed(
    run: TrainRun,
    shard_set: ShardSet,
    settings: Settings,
    *,
    log: Callable[[int, dict[str, float]], None],
    save: Callable[[TrainingState], None],
    finish: Callable[[], None],
) -> dict[str, float]:
    """Train, and measure the time spent on logging and on saving.

    Args:
        run: run to train.
        shard_set: shard set of the run.
        settings: what is trained.
        log: function that logs the metrics of a step.
        save: function that saves a checkpoint.
        finish: function that waits for the checkpoints that are still being written.

    Returns:
        The wall time in seconds; the shares of tracking and of checkpoints in it; the median time of a call in ms.
    """
    logging_time, saving_time = Stopwatch(), Stopwatch()
    state, results = steps_of(run, shard_set, settings.steps)
    started = time.perf_counter()
    for result in results:
        row = {_LOSS: result.loss_nats, "gradient_norm": result.gradient_norm, "learning_rate": result.learning_rate}
        with logging_time.running():
            log(result.step, row)
        if result.step % settings.checkpoint_every == 0:
            with saving_time.running():
                save(state)
    with saving_time.running():
        finish()
    wall = time.perf_counter() - started
    return {
        "wall": wall,
        "tracking": sum(logging_time.seconds) / wall,
        "tracking_ms": statistics.median(logging_time.seconds) * 1e3,
        "checkpoints": sum(saving_time.seconds[:-1]) / wall,
        "checkpoints_ms": statistics.median(saving_time.seconds[:-1]) * 1e3,
    }


def ours(run: TrainRun, shard_set: ShardSet, settings: Settings) -> dict[str, float]:
    """Measure this project's journal and background writer, with a coordinator as in any run."""
    run.folder.mkdir(parents=True)
    start_record(run, shard_set)
    coordinator = start_coordinator(
        run.folder, CoordinatorSettings(tracking_uri=tracking_uri(run.tracking, run.storage))
    )
    client = CoordinatorClient(coordinator, 0, batch_size=settings.batch_size)
    attempt = client.begin_attempt([WorkerInfo(0, "none", "here", 0, "")])
    client.join_attempt(attempt)
    saver = CheckpointSaver(
        store_of(run.folder, None), client, attempt.number, shard_set.vocabulary, "{}", BackgroundWriter()
    )

    def save(state: TrainingState) -> None:
        saver.save(
            state,
            CheckpointDescription(
                step=state.step,
                model=run.model,
                vocabulary_digest=shard_set.vocabulary.digest,
                max_caption_words=run.training.max_caption_words,
            ),
            metrics={},
        )

    found = timed(run, shard_set, settings, log=client.add_row, save=save, finish=saver.writer.wait)
    client.close()
    return found


def usual(run: TrainRun, shard_set: ShardSet, settings: Settings, folder: Path) -> dict[str, float]:
    """Measure the peer: ``torch.save`` and ``MlflowClient.log_batch`` in the loop."""
    client = MlflowClient(tracking_uri(TrackingConfig(), run.storage))
    run_id = client.create_run(client.create_experiment("usual")).info.run_id

    def log(step: int, row: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in row.items()])

    def save(state: TrainingState) -> None:
        content = {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
        torch.save(content, folder / f"{state.step}.pt")

    return timed(run, shard_set, settings, log=log, save=save, finish=lambda: None)


def measure(
    *,
    steps: int = 300,
    checkpoint_every: int = 50,
    backbone: str = "resnet18",
    batch_size: int = 32,
    image_size: int = 64,
) -> Iterator[Row]:
    """Measure both ways on the same scenes.

    Args:
        steps: training steps of each measurement.
        checkpoint_every: steps between checkpoints.
        backbone: torchvision model, with random weights, of which the last stage is trained.
        batch_size: images per step.
        image_size: side of an image, in pixels.
    """
    settings = Settings(
        steps=steps,
        checkpoint_every=checkpoint_every,
        backbone=backbone,
        batch_size=batch_size,
        image_size=image_size,
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="overheads-") as name, cluster_session(ClusterConfig()):
        folder = Path(name)
        shards = draw_shards(folder, num_train=400, num_val=20, size_px=image_size)
        run, shard_set = run_of(settings, folder, shards), ShardSet(shards)
        found, others = ours(run, shard_set, settings), usual(run, shard_set, settings, folder)
    size = (
        f"{steps} steps of {batch_size} images of {image_size} px, {backbone} with its last stage trained, one thread"
    )
    for what, how, peer in (
        ("tracking", "a row per step", "MlflowClient.log_batch"),
        ("checkpoints", f"one every {checkpoint_every} steps", "torch.save"),
    ):
        yield Row(
            what=f"share of the wall time spent on {what}, {how}",
            unit="%",
            ours=100 * found[what],
            peer=100 * others[what],
            peer_name=f"{peer} in the loop",
            less_is_better=True,
            note=f"{size}; {found[f'{what}_ms']:.2f} and {others[f'{what}_ms']:.2f} ms a call",
        )


BENCHMARK = Benchmark(measure, small={"steps": 4, "checkpoint_every": 2, "batch_size": 4})
