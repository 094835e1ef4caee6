"""Time of an epoch on extracted features, compared to the same steps on tensors in memory.

Training on features reads the shards from disk with the real loader. The peer trains the same steps of the same model
in the same process, on the same batches, made beforehand. The two alternate every few steps, so that other load on the
machine affects both. The means include the first epoch, in which captions are tokenized. The time of an epoch that runs
the encoder on every image ("live") is extrapolated from a few steps.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.model.calibration import calibrate
from captioning.model.caption_model import CaptionModel
from captioning.training.loop import TrainingState, train
from captioning.training.optimizer import build_optimizer
from cluster.data.extraction import extract, plan_extraction
from cluster.data.loading import calibration_images, training_batches
from cluster.data.shard_set import ShardSet
from shards.features.manifest import FeatureSettings
from tests.benchmarks.measuring import Benchmark, Row
from tests.support.drawn_shards import draw_shards

_CPU = torch.device("cpu")
_TURN_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained.

    Attributes:
        weights: weights of the encoder; they do not affect the time.
        image_size: side of an image, in pixels.
        batch_size: images per step.
        epochs: epochs to measure.
        live_steps: steps with the encoder running to measure.
    """

    weights: str
    image_size: int
    batch_size: int
    epochs: int
    live_steps: int


class Trained:
    """A model that trains a few steps at a time, on any batches.

    Args:
        shard_set: shard set with the vocabulary, and with the images or features for calibration.
        model: configuration of the model.
        training: configuration of the training.
    """

    def __init__(self, shard_set: ShardSet, model: ModelConfig, training: TrainingConfig) -> None:
        torch.manual_seed(training.seed)
        built = CaptionModel(model, vocabulary_size=len(shard_set.vocabulary))
        calibrate(built, calibration_images(shard_set, "train", model=model, config=training)[:32], model)
        self._optimizer, self._training = OptimizerConfig(warmup_steps=10), training
        self._state = TrainingState(built, build_optimizer(built, self._optimizer))

    def seconds_of(self, batches: Iterable, num_steps: int) -> np.ndarray:
        """Train ``num_steps`` more steps; return their wall time and CPU time in seconds, reading included."""
        started = now()
        results = train(
            self._state,
            self._state.model,
            batches,
            optimizer_config=self._optimizer,
            config=self._training,
            num_steps=self._state.step + num_steps,
            device=_CPU,
        )
        if len(list(results)) != num_steps:
            raise RuntimeError("the batches ended before the epoch; report this as a bug")
        return now() - started


def now() -> np.ndarray:
    """Return the wall clock and the CPU time of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def seconds_of_epochs(
    settings: Settings, shards: Path, folder: Path, *, backbone: str, regions: Literal["pooled", "grid"]
) -> dict[str, float]:
    """Return the mean seconds of an epoch on features, on tensors in memory, and live; and those of the extraction."""
    model = ModelConfig(backbone=backbone, weights=settings.weights, image_size_px=settings.image_size)
    training = TrainingConfig(batch_size=settings.batch_size, num_epochs=settings.epochs)
    started = now()
    plan = plan_extraction(
        ShardSet(shards), folder, model=model, settings=FeatureSettings(regions=regions), splits=("train",)
    )
    extract(plan, num_workers=0)
    extraction, _ = now() - started
    live, featured = ShardSet(shards), ShardSet(shards, folder)
    num_steps = live.manifest.splits["train"] // settings.batch_size

    def batches(shard_set: ShardSet, count: int) -> Iterable:
        shared = {"model": model, "config": training, "ranks": (0, 1)}
        return training_batches(shard_set, "train", steps=range(count), **shared)

    on_disk, beforehand = (iter(batches(featured, num_steps * settings.epochs)) for _ in range(2))
    ours, peer = Trained(featured, model, training), Trained(featured, model, training)
    for one in (ours, peer):
        one.seconds_of(batches(featured, 2), 2)  # warm-up, not counted
    features, tensors = np.zeros((settings.epochs, 2)), np.zeros((settings.epochs, 2))
    for epoch in range(settings.epochs):
        in_memory = list(islice(beforehand, num_steps))
        for start in range(0, num_steps, _TURN_STEPS):
            turn = in_memory[start : start + _TURN_STEPS]
            features[epoch] += ours.seconds_of(islice(on_disk, len(turn)), len(turn))
            tensors[epoch] += peer.seconds_of(turn, len(turn))
    live_seconds, _ = Trained(live, model, training).seconds_of(batches(live, settings.live_steps), settings.live_steps)
    return {
        "extraction": extraction,
        "features": features[:, 0].mean(),
        "first": features[0, 0],
        "tensors": tensors[:, 0].mean(),
        "live": live_seconds / settings.live_steps * num_steps,
    }


def measure(
    *,
    shards: Path | None = None,
    num_images: int = 320,
    backbones: tuple[str, ...] = ("mobilenet_v2", "resnet50"),
    weights: str = "none",
    regions: tuple[Literal["pooled", "grid"], ...] = ("pooled", "grid"),
    image_size: int = 224,
    batch_size: int = 32,
    epochs: int = 2,
    live_steps: int = 2,
) -> Iterator[Row]:
    """Measure epochs for each encoder and kind of features.

    Args:
        shards: shard set with a split train; synthetic scenes if not given.
        num_images: number of scenes to draw.
        backbones: torchvision models.
        weights: weights of the backbones; they do not affect the time.
        regions: kinds of features.
        image_size: side of an image, in pixels.
        batch_size: images per step.
        epochs: epochs to measure.
        live_steps: steps with the encoder running to measure.
    """
    settings = Settings(
        weights=weights, image_size=image_size, batch_size=batch_size, epochs=epochs, live_steps=live_steps
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="features-") as name:
        folder = Path(name)
        shards = shards or draw_shards(folder, num_train=num_images, num_val=10, size_px=image_size)
        count = ShardSet(shards).manifest.splits["train"]
        for kind in regions:
            for backbone in backbones:
                found = seconds_of_epochs(settings, shards, folder / backbone / kind, backbone=backbone, regions=kind)
                yield Row.of_seconds(
                    f"an epoch of {count} images of {image_size} px on {kind} features of {backbone}, one thread",
                    {
                        "ours": found["features"],
                        "with the encoder, extrapolated": found["live"],
                        "on tensors in memory": found["tensors"],
                    },
                    unit="s",
                    note=f"extraction {found['extraction']:.1f} s, first epoch {found['first']:.1f} s",
                )


BENCHMARK = Benchmark(
    measure,
    small={
        "num_images": 48,
        "backbones": ("squeezenet1_1",),
        "regions": ("grid",),
        "image_size": 64,
        "batch_size": 16,
        "epochs": 1,
        "live_steps": 1,
    },
)
