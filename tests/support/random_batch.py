"""Random images and captions, which need no data set: a batch of them, and what a loader makes of them."""

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from captioning.config import ModelConfig
from captioning.data.batches import CaptionBatch, EncodedJpeg, EncodedSample, decode_batch, encode_captions
from captioning.data.pixels import Augmentation
from captioning.data.vocabulary import SPECIAL_WORDS, Vocabulary
from captioning.model.caption_model import CaptionModel

_NUM_WORDS = 10_000
_CAPTIONS_PER_IMAGE = 5
_LENGTHS = (7, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 10, 11, 11, 12, 12, 13, 13, 15)
"""Words of a caption: the twentieths of 1,816 captions of COCO val2017."""


def random_vocabulary() -> Vocabulary:
    """Return a vocabulary of 10,000 words."""
    return Vocabulary([*SPECIAL_WORDS, *(f"w{number}" for number in range(_NUM_WORDS))])


@dataclass(frozen=True, kw_only=True)
class CaptionedJpeg:
    """A sample as it is stored."""

    key: str
    position: int
    jpeg: bytes
    captions: tuple[str, ...]
    shard: str


def make_batch(
    samples: Sequence[CaptionedJpeg],
    vocabulary: Vocabulary,
    *,
    model: ModelConfig,
    augmentation: Augmentation | None = None,
) -> CaptionBatch:
    """Encode the captions of samples, and decode their images into a batch."""
    encoded = [
        EncodedJpeg(
            EncodedSample(one.key, one.position, one.shard, encode_captions(one.captions, vocabulary, max_words=30)),
            one.jpeg,
        )
        for one in samples
    ]
    return decode_batch(encoded, model.image_size_px, augmentation=augmentation)


def random_samples(*, num_images: int, size_px: int) -> list[CaptionedJpeg]:
    """Return smooth random images with five captions of random words, as long as COCO's; the same at every call."""
    generator, lengths = np.random.default_rng(0), itertools.cycle(_LENGTHS)
    return [
        CaptionedJpeg(
            key=f"{number:06}",
            position=number,
            jpeg=_jpeg(generator, size_px),
            captions=tuple(
                " ".join(f"w{word}" for word in generator.integers(0, _NUM_WORDS, length))
                for length in itertools.islice(lengths, _CAPTIONS_PER_IMAGE)
            ),
            shard="train-000000.tar",
        )
        for number in range(num_images)
    ]


def random_batch(vocabulary: Vocabulary, model: ModelConfig, *, num_images: int) -> CaptionBatch:
    """Return a batch of ``random_samples``."""
    samples = random_samples(num_images=num_images, size_px=model.image_size_px)
    return make_batch(samples, vocabulary, model=model)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained: a model on images or on features, and the batches of the loader."""

    name: str
    config: ModelConfig
    batch: CaptionBatch
    """Batch of the steps that need no loader."""
    loaded: "LoadedBatches"


class LoadedBatches(Dataset[list[CaptionBatch]]):
    """Batches as loader processes make them: decoded and augmented images, or drawn features.

    Args:
        batch: batch of the captions.
        config: settings of the model.
        num_steps: number of batches.
    """

    def __init__(self, batch: CaptionBatch, config: ModelConfig, num_steps: int) -> None:
        self._batch, self._config, self._num_steps = batch, config, num_steps
        self._vocabulary = random_vocabulary()
        has_features = batch.images.is_floating_point()
        self._samples = [] if has_features else random_samples(num_images=len(batch.images), size_px=256)

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, step: int) -> list[CaptionBatch]:
        if not self._samples:
            return [self._batch._replace(images=self._batch.images.roll(step, 0))]
        moved = [replace(sample, position=sample.position + step * len(self._samples)) for sample in self._samples]
        augmentation = Augmentation(seed=0, crop_area=0.7, flip=True)
        return [make_batch(moved, self._vocabulary, model=self._config, augmentation=augmentation)]


def cases(tuned: ModelConfig, *, batch_size: int, num_steps: int) -> list[Case]:
    """Return the training of a model, and of its decoder on features.

    Args:
        tuned: settings of the model, whose encoder is trained in part.
        batch_size: images per step.
        num_steps: number of batches of the loader.
    """
    vocabulary = random_vocabulary()
    frozen = replace(tuned, trainable_from=None)
    images = random_batch(vocabulary, tuned, num_images=batch_size)
    num_channels = CaptionModel(frozen, vocabulary_size=len(vocabulary)).encoder.num_channels
    shape = batch_size, 1, num_channels
    features = images._replace(images=torch.randn(shape, generator=torch.Generator().manual_seed(0)).half())
    return [
        Case(name=name, config=config, batch=batch, loaded=LoadedBatches(batch, config, num_steps))
        for name, config, batch in (
            (f"{tuned.backbone} from {tuned.trainable_from}", tuned, images),
            ("decoder on features", frozen, features),
        )
    ]


def _jpeg(generator: np.random.Generator, size_px: int) -> bytes:
    corners = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(corners).resize((size_px, size_px), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()
