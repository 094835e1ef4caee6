"""Time of an epoch on extracted features, compared to the same steps on tensors in memory.

Example:
    python tests/benchmarks/features.py --shards data/coco-shards --batch-size 32

Training on features reads the shards from disk with the real loader. The peer trains the same steps of the same model
in the same process, on the same batches, made beforehand. The two alternate every few steps, so that other load on the
machine affects both. The means include the first epoch, in which captions are tokenized. The time of an epoch that runs
the encoder on every image ("live") is extrapolated from a few steps.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.model.calibration import calibrate
from captioning.model.caption_model import CaptionModel
from captioning.training.loop import TrainingState, train
from captioning.training.optimizer import build_optimizer
from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.extraction import extract, plan_extraction
from cluster.data.loading import calibration_images, training_batches
from cluster.data.shard_set import ShardSet
from shards.features.manifest import FeatureSettings
from shards.synthetic.scenes import write_scenes

_CPU = torch.device("cpu")
_TURN_STEPS = 5


def parse() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="shard set with a split train; synthetic scenes if not given")
    parser.add_argument("--num-images", type=int, default=1000, help="synthetic scenes to draw")
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2", "resnet50"], help="torchvision models")
    parser.add_argument("--weights", default="none", help="weights of the backbones; they do not affect the time")
    parser.add_argument(
        "--regions", nargs="+", default=["pooled"], choices=["pooled", "grid"], help="kinds of features"
    )
    parser.add_argument("--image-size", type=int, default=224, help="side of an image, in pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="images per step")
    parser.add_argument("--epochs", type=int, default=3, help="epochs to measure")
    parser.add_argument("--live-steps", type=int, default=3, help="steps with the encoder running to measure")
    return parser.parse_args()


def drawn(settings: argparse.Namespace, folder: Path) -> Path:
    """Write a shard set of synthetic scenes; return its folder."""
    size_px = settings.image_size
    write_scenes(folder / "scenes", num_train=settings.num_images, num_val=10, seed=0, size_px=size_px)
    plan = plan_conversion(
        folder / "scenes", folder / "shards", ConversionConfig(samples_per_shard=1000, minimum_word_count=1)
    )
    convert(plan, num_workers=0)
    return folder / "shards"


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


def measure(
    settings: argparse.Namespace, shards: Path, folder: Path, *, backbone: str, regions: Literal["pooled", "grid"]
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
        "ratio": features[:, 0].sum() / tensors[:, 0].sum(),
        "cpu_ratio": features[:, 1].sum() / tensors[:, 1].sum(),
        "live": live_seconds / settings.live_steps * num_steps,
    }


def main() -> None:
    """Measure every encoder and kind of features, and print the table."""
    settings = parse()
    torch.set_num_threads(1)
    console = Console(file=sys.stdout, width=120)
    table = Table(
        "encoder", "regions", "extraction", "epoch on features", "on tensors", "ratio", "CPU ratio", "live epoch"
    )
    with tempfile.TemporaryDirectory(prefix="features-") as name:
        folder = Path(name)
        shards = settings.shards or drawn(settings, folder)
        num_images = ShardSet(shards).manifest.splits["train"]
        for backbone in settings.backbones:
            for regions in settings.regions:
                found = measure(settings, shards, folder / backbone / regions, backbone=backbone, regions=regions)
                table.add_row(
                    backbone,
                    regions,
                    f"{found['extraction']:.1f} s",
                    f"{found['features']:.1f} s (first {found['first']:.1f} s)",
                    f"{found['tensors']:.1f} s",
                    f"{found['ratio']:.3f}",
                    f"{found['cpu_ratio']:.3f}",
                    f"{found['live']:.0f} s ({found['live'] / found['features']:.1f} times)",
                )
    console.print(
        f"{num_images} images of {settings.image_size} px, batches of {settings.batch_size}, one thread, means over "
        f"{settings.epochs} epochs; live extrapolated from {settings.live_steps} steps"
    )
    console.print(table)


if __name__ == "__main__":
    main()
