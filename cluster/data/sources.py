"""Sources of batches: the images of a split, or features that a frozen encoder computed from them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from captioning.config import ModelConfig, TrainingConfig
from captioning.data.batches import (
    BadSample,
    CaptionBatch,
    EncodedJpeg,
    EncodedSample,
    collate,
    decode_batch,
    encode_captions,
)
from captioning.data.pixels import Augmentation
from captioning.data.views import draw_views
from captioning.data.vocabulary import Vocabulary
from shards.features.reader import DescribedSample, FeatureReader
from shards.reader import DamagedSampleError, Sample, ShardReader

# Samples that keep their tokenized captions in memory, at half a kilobyte each.
_MAX_REMEMBERED = 200_000


class Source(Protocol):
    """A split of a shard set, as batches."""

    @property
    def shard_sizes(self) -> np.ndarray:
        """Return the number of samples of each shard, (N,) int64."""
        ...

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch remote shards into the node's cache in the background, by their indices in ``shard_sizes``."""
        ...

    def batch(self, numbers: Sequence[int], positions: Sequence[int], *, is_training: bool) -> CaptionBatch:
        """Read samples; bad ones are left out of the batch and listed in it.

        Args:
            numbers: numbers of the samples within the split.
            positions: positions of the samples in the training stream; in validation, their numbers.
            is_training: whether to augment the samples; otherwise they are read as stored.
        """
        ...


class _Remembered(NamedTuple):
    key: str
    shard: str
    words: np.ndarray


class _CaptionMemory:
    """The captions of samples as word ids, each tokenized once in this process.

    Args:
        vocabulary: vocabulary of the captions.
        max_words: number of words after which a caption is cut.
    """

    def __init__(self, vocabulary: Vocabulary, max_words: int) -> None:
        self._vocabulary, self._max_words = vocabulary, max_words
        self._remembered: dict[int, _Remembered] = {}

    def find(self, number: int) -> _Remembered | None:
        """Return a sample's captions if they were added before."""
        return self._remembered.get(number)

    def add(self, number: int, sample: Sample | DescribedSample) -> _Remembered:
        """Tokenize a sample's captions, and remember them while there is room."""
        words = encode_captions(sample.captions, self._vocabulary, max_words=self._max_words)
        made = _Remembered(sample.key, sample.shard, words)
        if len(self._remembered) < _MAX_REMEMBERED:
            self._remembered[number] = made
        return made


class ImageSource:
    """Batches of decoded images.

    Args:
        reader: reader of the split.
        vocabulary: vocabulary of the captions.
        model: model configuration, for the image size.
        config: training configuration, for augmentation and caption length.
        by_pillow: whether Pillow decodes JPEGs, as when an earlier release made the shard set.
    """

    def __init__(
        self,
        reader: ShardReader,
        vocabulary: Vocabulary,
        *,
        model: ModelConfig,
        config: TrainingConfig,
        by_pillow: bool = False,
    ) -> None:
        self._reader, self._model, self._config, self._by_pillow = reader, model, config, by_pillow
        self._captions = _CaptionMemory(vocabulary, config.max_caption_words)
        self.shard_sizes = reader.shard_sizes

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch remote shards into the node's cache in the background."""
        self._reader.prefetch(shards)

    def batch(self, numbers: Sequence[int], positions: Sequence[int], *, is_training: bool) -> CaptionBatch:
        """Read and decode samples."""
        return decode_batch(
            [self._sample(number, position) for number, position in zip(numbers, positions, strict=True)],
            self._model.image_size_px,
            augmentation=Augmentation.of(self._config) if is_training else None,
            by_pillow=self._by_pillow,
        )

    def _sample(self, number: int, position: int) -> EncodedJpeg | BadSample:
        try:
            known = self._captions.find(number)
            if known:
                content = self._reader.read_image(number)
            else:
                sample = self._reader.read(number)
                known, content = self._captions.add(number, sample), sample.jpeg
        except DamagedSampleError as error:
            return BadSample(error.key, error.shard, position, error.reason)
        return EncodedJpeg(EncodedSample(known.key, position, known.shard, known.words), content)


class FeatureSource:
    """Batches of features, one view per image: a random view in training, otherwise the centre.

    Args:
        reader: reader of the split.
        vocabulary: vocabulary of the captions.
        config: training configuration, for seed and caption length.
    """

    def __init__(self, reader: FeatureReader, vocabulary: Vocabulary, *, config: TrainingConfig) -> None:
        self._reader, self._config = reader, config
        self._captions = _CaptionMemory(vocabulary, config.max_caption_words)
        self.shard_sizes = reader.shard_sizes

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch remote shards into the node's cache in the background."""
        self._reader.prefetch(shards)

    def batch(self, numbers: Sequence[int], positions: Sequence[int], *, is_training: bool) -> CaptionBatch:
        """Copy a view of each sample."""
        views = [0] * len(numbers)
        if is_training and self._reader.num_views > 1:
            views = draw_views(positions, seed=self._config.seed, num_views=self._reader.num_views)
        # Views are copied from the memory map straight into the batch; a bad sample's row is used for the next one.
        features = np.empty((len(numbers), *self._reader.view_shape), np.float16)
        good: list[EncodedSample] = []
        bad: list[BadSample] = []
        for number, position, view in zip(numbers, positions, views, strict=True):
            try:
                self._reader.copy_view(number, view, features[len(good)])
                key, shard, words = self._captions.find(number) or self._captions.add(
                    number, self._reader.describe(number)
                )
            except DamagedSampleError as error:
                bad.append(BadSample(error.key, error.shard, position, error.reason))
            else:
                good.append(EncodedSample(key, position, shard, words))
        return collate(torch.from_numpy(features[: len(good)]), good, tuple(bad))
