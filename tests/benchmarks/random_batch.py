"""A batch of random images and captions, which needs no data set."""

import io

import numpy as np
from PIL import Image

from captioning.config import ModelConfig
from captioning.data.batches import CaptionBatch, CaptionedJpeg, make_batch
from captioning.data.vocabulary import SPECIAL_WORDS, Vocabulary

_NUM_WORDS = 10_000
_WORDS_PER_CAPTION, _CAPTIONS_PER_IMAGE = 10, 5


def random_vocabulary() -> Vocabulary:
    """Return a vocabulary of 10,000 words."""
    return Vocabulary([*SPECIAL_WORDS, *(f"w{number}" for number in range(_NUM_WORDS))])


def random_batch(vocabulary: Vocabulary, model: ModelConfig, *, num_images: int) -> CaptionBatch:
    """Return a batch of smooth random images with five captions of ten random words each, the same at every call."""
    generator = np.random.default_rng(0)
    samples = [
        CaptionedJpeg(
            key=f"{number:06}",
            position=number,
            jpeg=_jpeg(generator, model.image_size_px),
            captions=tuple(
                " ".join(f"w{word}" for word in generator.integers(0, _NUM_WORDS, _WORDS_PER_CAPTION))
                for _ in range(_CAPTIONS_PER_IMAGE)
            ),
            shard="train-000000.tar",
        )
        for number in range(num_images)
    ]
    return make_batch(samples, vocabulary, model=model, max_caption_words=30, augmentation=None)


def _jpeg(generator: np.random.Generator, size_px: int) -> bytes:
    corners = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(corners).resize((size_px, size_px), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()
