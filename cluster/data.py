"""Order, reader and batches put together for one rank; imports no Ray."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captioning.batches import BadSample, CaptionBatch, CaptionedJpeg, make_batch
from captioning.calibration import NUM_CALIBRATION_IMAGES
from captioning.config import ModelConfig, TrainingConfig
from captioning.pixels import Augmentation
from captioning.vocabulary import Vocabulary, load_vocabulary
from shards.manifest import VOCABULARY_NAME, Manifest, load_manifest
from shards.order import SampleOrder, rank_share
from shards.reader import DamagedSampleError, ShardReader


class ShardSet:
    """A finished shard set: manifest, vocabulary and readers of its splits.

    Args:
        folder: of the shard set.

    Raises:
        FileNotFoundError: the folder is no finished shard set.
        ValueError: the manifest or the vocabulary is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = load_manifest(folder)
        self.vocabulary: Vocabulary = load_vocabulary(folder / VOCABULARY_NAME)
        if self.vocabulary.digest != self.manifest.vocabulary_digest:
            raise ValueError(
                f"{folder / VOCABULARY_NAME} differs from the vocabulary in the manifest; run captioning convert again"
            )

    def reader(self, split: str) -> ShardReader:
        """Return a reader of a split, whose sample numbers count through its shards by name."""
        return ShardReader(self.folder, self.manifest.of_split(split))


class _TrainingShare(Dataset[list[CaptionBatch]]):
    """Step -> this rank's share of the step's batch, in parts."""

    def __init__(
        self,
        reader: ShardReader,
        vocabulary: Vocabulary,
        model: ModelConfig,
        config: TrainingConfig,
        ranks: tuple[int, int],
    ) -> None:
        self._reader, self._vocabulary, self._model, self._config, self._ranks = (
            reader,
            vocabulary,
            model,
            config,
            ranks,
        )
        self._order = SampleOrder(reader.shard_sizes, seed=config.seed, window_shards=config.shuffle_window_shards)

    def __getitem__(self, step: int) -> list[CaptionBatch]:
        size = self._config.batch_size
        share = rank_share(step * size, (step + 1) * size, *self._ranks)
        numbers = self._order.at(share.start, share.stop)
        samples = [_captioned_jpeg(self._reader, int(number), share.start + at) for at, number in enumerate(numbers)]
        num_parts = min(self._config.accumulation, len(samples))
        cuts = [len(samples) * part // num_parts for part in range(num_parts + 1)]
        return [self._batch(samples[start:stop]) for start, stop in pairwise(cuts)]

    def _batch(self, samples: Sequence[CaptionedJpeg | BadSample]) -> CaptionBatch:
        return make_batch(
            samples,
            self._vocabulary,
            model=self._model,
            max_caption_words=self._config.max_caption_words,
            augmentation=Augmentation.of(self._config),
        )


class _ValidationShare(Dataset[CaptionBatch]):
    """Number -> one batch of a rank's contiguous share of a split, as it is stored."""

    def __init__(
        self,
        reader: ShardReader,
        vocabulary: Vocabulary,
        model: ModelConfig,
        config: TrainingConfig,
        ranks: tuple[int, int],
    ) -> None:
        self._reader, self._vocabulary, self._model, self._config = reader, vocabulary, model, config
        rank, world_size = ranks
        self._start, self._stop = len(reader) * rank // world_size, len(reader) * (rank + 1) // world_size
        self._size = max(1, config.batch_size // (world_size * config.accumulation))

    def __len__(self) -> int:
        return -(-(self._stop - self._start) // self._size)

    def __getitem__(self, index: int) -> CaptionBatch:
        start = self._start + index * self._size
        numbers = range(start, min(start + self._size, self._stop))
        samples = [_captioned_jpeg(self._reader, number, number) for number in numbers]
        return make_batch(
            samples, self._vocabulary, model=self._model, max_caption_words=self._config.max_caption_words
        )


def calibration_images(shard_set: ShardSet, split: str, *, model: ModelConfig, config: TrainingConfig) -> Tensor:
    """Read the first images of the training stream as they are stored, the same for every rank.

    Bad samples are left out; whether they stop the training is decided where they are trained on.

    Returns:
        (K, 3, S, S) uint8, at most ``NUM_CALIBRATION_IMAGES``.

    Raises:
        ValueError: all of them are bad.
    """
    reader = shard_set.reader(split)
    order = SampleOrder(reader.shard_sizes, seed=config.seed, window_shards=config.shuffle_window_shards)
    numbers = order.at(0, min(NUM_CALIBRATION_IMAGES, len(reader)))
    samples = [_captioned_jpeg(reader, int(number), position) for position, number in enumerate(numbers)]
    batch = make_batch(samples, shard_set.vocabulary, model=model, max_caption_words=config.max_caption_words)
    if not batch.num_images:
        key, shard, _, reason = batch.bad[0]
        raise ValueError(
            f"none of the first {len(samples)} images of {split} can be read, first {key} of {shard} ({reason}); "
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
    num_loader_processes: int = 0,
) -> Iterable[list[CaptionBatch]]:
    """Read a rank's share of each step's batch; bad samples are left out of it, and listed.

    Args:
        shard_set: to read.
        split: of it.
        model: decides about the size of images.
        config: of batch, order, parts and augmentation.
        ranks: (rank, world size).
        steps: to read for.
        num_loader_processes: that read ahead; 0 reads when asked.
    """
    share = _TrainingShare(shard_set.reader(split), shard_set.vocabulary, model, config, ranks)
    return _loader(share, list(steps), num_loader_processes)


def validation_batches(
    shard_set: ShardSet,
    split: str,
    *,
    model: ModelConfig,
    config: TrainingConfig,
    ranks: tuple[int, int],
    num_loader_processes: int = 0,
) -> Iterable[CaptionBatch]:
    """Read a rank's share of a split once, in order and without augmentation; the arguments of ``training_batches``."""
    share = _ValidationShare(shard_set.reader(split), shard_set.vocabulary, model, config, ranks)
    return _loader(share, list(range(len(share))), num_loader_processes)


def _loader(dataset: Dataset, indices: Sequence[int], num_loader_processes: int) -> DataLoader:
    return DataLoader(dataset, batch_size=None, sampler=indices, num_workers=num_loader_processes)


def _captioned_jpeg(reader: ShardReader, number: int, position: int) -> CaptionedJpeg | BadSample:
    try:
        sample = reader.read(number)
    except DamagedSampleError as error:
        return BadSample(error.key, error.shard.name, position, error.reason)
    return CaptionedJpeg(sample.key, position, sample.jpeg, sample.captions, sample.shard)
