"""Bytes and captions -> a batch of tensors.

Shapes: B images, S pixels a side, N captions, T words with <bos> and <eos>, M targets.
"""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from captioning.config import ModelConfig, TrainingConfig
from captioning.hashing import fold, uniform
from captioning.vocabulary import BOS, EOS, PAD, Vocabulary

_AUGMENTATION_SITE = 0
_ORIENTATION_TAG = 0x0112


class CaptionedJpeg(NamedTuple):
    """One image of the training stream, as stored."""

    key: str
    position: int
    jpeg: bytes
    captions: tuple[str, ...]


class CaptionBatch(NamedTuple):
    """Images with all of their captions.

    Attributes:
        images: (B, 3, S, S) uint8.
        tokens: (N, T) int64 word ids: <bos>, the words, <eos>, then <pad>.
        image_of_caption: (N,) int64, row of ``images``.
        position: (N,) int64, position of the caption's image in the training stream.
        caption: (N,) int64, number of the caption within its image.
        keys: of the B images.
    """

    images: Tensor
    tokens: Tensor
    image_of_caption: Tensor
    position: Tensor
    caption: Tensor
    keys: tuple[str, ...]

    @property
    def num_targets(self) -> int:
        """Return M, the words that are predicted: all but <bos> and <pad>."""
        return int((self.tokens[:, 1:] != PAD).sum())

    def targets(self) -> Tensor:
        """Return (M,) int64, caption by caption."""
        following = self.tokens[:, 1:]
        return following[following != PAD]

    def to(self, device: torch.device) -> "CaptionBatch":
        """Return the batch on a device."""
        names = ("images", "tokens", "image_of_caption", "position", "caption")
        return self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in names})


class Augmentation(NamedTuple):
    """How a training image differs from what is stored.

    Attributes:
        seed: with the position in the stream, decides about crop and flip.
        crop_area: smallest share of the largest square that is kept.
        flip: whether half of the images are mirrored.
    """

    seed: int
    crop_area: float
    flip: bool

    @classmethod
    def of(cls, config: TrainingConfig) -> "Augmentation":
        """Return the augmentation of a training run."""
        return cls(config.seed, config.crop_area, config.flip)


def decode_image(jpeg: bytes, size_px: int, *, augmentation: Augmentation | None = None, position: int = 0) -> Tensor:
    """Decode an image to a square: its centre, or a crop that its position in the stream decides.

    Args:
        jpeg: any still image that Pillow reads; CMYK, greyscale and EXIF-rotated ones become upright RGB.
        size_px: S.
        augmentation: None takes the largest centred square.
        position: in the training stream.

    Returns:
        (3, S, S) uint8.

    Raises:
        ValueError: it does not decode.
    """
    area, left, top, mirror = 1.0, 0.5, 0.5, 1.0
    if augmentation:
        key = fold(augmentation.seed, torch.arange(4), position, _AUGMENTATION_SITE)
        draw, left, top, mirror = uniform(key).tolist()
        area = augmentation.crop_area + (1 - augmentation.crop_area) * draw
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            # libjpeg decodes at 1/2, 1/4 or 1/8 of the size for less; the crop must still have its pixels.
            image.draft("RGB", (math.ceil(size_px / area**0.5),) * 2)
            upright = _upright_rgb(image)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image does not decode ({error})") from error
    side = min(upright.size) * area**0.5
    x, y = (upright.width - side) * left, (upright.height - side) * top
    square = upright.resize((size_px, size_px), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    if augmentation and augmentation.flip and mirror < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.asarray(square).transpose(2, 0, 1).copy())


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Return the image as a viewer shows it, transparency over white."""
    if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = image.convert("RGBA")
        image = Image.new("RGB", opaque.size, "white")
        image.paste(opaque, mask=opaque.getchannel("A"))
    return image.convert("RGB")


def make_batch(
    samples: Sequence[CaptionedJpeg],
    vocabulary: Vocabulary,
    *,
    model: ModelConfig,
    max_caption_words: int,
    augmentation: Augmentation | None = None,
) -> CaptionBatch:
    """Decode images, encode captions and pad them to one length.

    Raises:
        ValueError: an image does not decode or has no caption; the message names its key.
    """
    images = []
    for sample in samples:
        if not sample.captions:
            raise ValueError(f"sample {sample.key}: it has no caption; run captioning convert again")
        try:
            image = decode_image(sample.jpeg, model.image_size_px, augmentation=augmentation, position=sample.position)
        except ValueError as error:
            raise ValueError(f"sample {sample.key}: {error}; run captioning convert again") from error
        images.append(image)
    rows = [
        (image, sample.position, number, [BOS, *vocabulary.encode(caption)[:max_caption_words], EOS])
        for image, sample in enumerate(samples)
        for number, caption in enumerate(sample.captions)
    ]
    tokens = torch.full((len(rows), max(len(ids) for *_, ids in rows)), PAD)
    for row, (*_, ids) in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    image_of_caption, position, caption = (torch.tensor([row[part] for row in rows]) for part in range(3))
    keys = tuple(sample.key for sample in samples)
    return CaptionBatch(torch.stack(images), tokens, image_of_caption, position, caption, keys)
