"""Data loader: a rank's share of the training stream and of a validation split, as batches.

Shapes: B images, S pixels a side.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from captioning.config import ModelConfig, TrainingConfig
from captioning.data.batches import CaptionBatch
from captioning.model.calibration import NUM_CALIBRATION_IMAGES
from cluster.data.loader_processes import Reading
from cluster.data.shard_set import ShardSet
from cluster.data.sources import Source
from shards.order import SampleOrder, rank_share


class _TrainingShare(Dataset[list[CaptionBatch]]):
    """Map a step to this rank's share of the step's batch, in parts for gradient accumulation."""

    def __init__(self, source: Source, config: TrainingConfig, ranks: tuple[int, int]) -> None:
        self._source, self._config, self._ranks = source, config, ranks
        self._order = SampleOrder(source.shard_sizes, seed=config.seed, window_shards=config.shuffle_window_shards)

    def __getitem__(self, step: int) -> list[CaptionBatch]:
        size = self._config.batch_size
        share = rank_share(step * size, (step + 1) * size, *self._ranks)
        numbers = self._order.at(share.start, share.stop).tolist()
        # This window's shards and the next one's, so that the next window starts without a wait.
        self._source.prefetch(self._order.upcoming_shards(share.start))
        num_parts = min(self._config.accumulation, len(share))
        cuts = [len(share) * part // num_parts for part in range(num_parts + 1)]
        return [
            self._source.batch(numbers[start:stop], share[start:stop], is_training=True)
            for start, stop in pairwise(cuts)
        ]


class _ValidationShare(Dataset[CaptionBatch]):
    """Map an index to one batch of a rank's contiguous share of a split, not augmented."""

    def __init__(self, source: Source, config: TrainingConfig, ranks: tuple[int, int], most: int | None) -> None:
        self._source, num_samples = source, int(np.sum(source.shard_sizes))
        rank, world_size = ranks
        stop = num_samples * (rank + 1) // world_size
        self._start, self._stop = num_samples * rank // world_size, stop if most is None else min(stop, most)
        # As large as one part of a rank's share in training, which is known to fit in memory.
        self._size = max(1, config.batch_size // (world_size * config.accumulation))

    def __len__(self) -> int:
        return max(0, -(-(self._stop - self._start) // self._size))

    def __getitem__(self, index: int) -> CaptionBatch:
        start = self._start + index * self._size
        numbers = range(start, min(start + self._size, self._stop))
        return self._source.batch(numbers, numbers, is_training=False)


def calibration_images(shard_set: ShardSet, split: str, *, model: ModelConfig, config: TrainingConfig) -> Tensor:
    """Read the first images of the training stream, not augmented and the same for every rank.

    Bad samples are left out; training itself decides whether they stop the run.

    Returns:
        (K, 3, S, S) uint8, or (K, R, C) float16 features; at most ``NUM_CALIBRATION_IMAGES``.

    Raises:
        ValueError: all of them are bad.
    """
    source = shard_set.source(split, model=model, config=config)
    order = SampleOrder(source.shard_sizes, seed=config.seed, window_shards=config.shuffle_window_shards)
    numbers = order.at(0, min(NUM_CALIBRATION_IMAGES, order.num_samples)).tolist()
    batch = source.batch(numbers, range(len(numbers)), is_training=False)
    if not batch.num_images:
        key, shard, _, reason = batch.bad[0]
        raise ValueError(
            f"none of the first {len(numbers)} images of {split} can be read, first {key} of {shard} ({reason}); "
            "run captioning convert again"
        )
    return batch.images


def training_batches(
    shard_set: ShardSet,
    split: str,
    *,
    model: ModelConfig,
    config: TrainingConfig,
    ranks: tuple[int, int],
    steps: range,
    num_loader_processes: int | None = 0,
    num_cpus: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Iterable[list[CaptionBatch]]:
    """Read a rank's share of each step's batch; bad samples are left out of a batch and listed in it.

    Args:
        shard_set: shard set to read.
        split: name of the split to read.
        model: model configuration, for the image size.
        config: training configuration: batch size, order, accumulation and augmentation.
        ranks: (rank, world size).
        steps: steps to read.
        num_loader_processes: number of loader processes, which read ahead; with 0 a batch is read when it is requested;
            None to choose the number when some steps are done, by ``loader_processes.choose``.
        num_cpus: CPUs that are reserved for this process.
        say: function that is given a line about the chosen number.
    """
    return Reading(
        lambda: _TrainingShare(shard_set.source(split, model=model, config=config), config, ranks),
        steps,
        num_processes=num_loader_processes,
        num_cpus=num_cpus,
        say=say,
    )


def validation_batches(
    shard_set: ShardSet,
    split: str,
    *,
    model: ModelConfig,
    config: TrainingConfig,
    ranks: tuple[int, int],
    num_loader_processes: int | None = 0,
    num_cpus: int = 1,
    most: int | None = None,
) -> Iterable[CaptionBatch]:
    """Read a rank's share of a split once, in order and not augmented; further arguments as in ``training_batches``.

    Args:
        shard_set: shard set to read.
        split: name of the split to read.
        model: model configuration, for the image size.
        config: training configuration: batch size.
        ranks: (rank, world size).
        num_loader_processes: number of loader processes; None to choose it.
        num_cpus: CPUs that are reserved for this process.
        most: number of images of the split to read, over all ranks; None for all.
    """
    return Reading(
        lambda: _ValidationShare(shard_set.source(split, model=model, config=config), config, ranks, most),
        num_processes=num_loader_processes,
        num_cpus=num_cpus,
    )
