"""Bytes and captions -> a batch of tensors.

Shapes: B images, S pixels a side, N captions, T words with <bos> and <eos>, M targets.
"""

import io
import math
from collections.abc import Collection, Sequence
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
    shard: str


class BadSample(NamedTuple):
    """One that cannot be trained on.

    Attributes:
        key: of the sample.
        shard: its name.
        position: in the training stream; in validation, the number within the split.
        reason: what is wrong with it.
    """

    key: str
    shard: str
    position: int
    reason: str


class CaptionBatch(NamedTuple):
    """Images with all of their captions.

    A batch without any image is blank: it holds one black image with a caption without targets, so that a process
    computes with it as with any other, and adds exactly nothing to loss and gradient.

    Attributes:
        images: (B, 3, S, S) uint8.
        tokens: (N, T) int64 word ids: <bos>, the words, <eos>, then <pad>.
        image_of_caption: (N,) int64, row of ``images``.
        position: (N,) int64, position of the caption's image in the training stream.
        caption: (N,) int64, number of the caption within its image.
        keys: of the B images; none of a blank batch.
        shards: of the B images, by name; none of a blank batch.
        bad: samples that belong here, and were left out.
    """

    images: Tensor
    tokens: Tensor
    image_of_caption: Tensor
    position: Tensor
    caption: Tensor
    keys: tuple[str, ...]
    shards: tuple[str, ...]
    bad: tuple[BadSample, ...] = ()

    @property
    def num_images(self) -> int:
        """Return the images that count."""
        return len(self.keys)

    @property
    def num_targets(self) -> int:
        """Return M, the words that are predicted: all but <bos> and <pad>."""
        return int(self._is_target().sum())

    def targets(self) -> Tensor:
        """Return (M,) int64, caption by caption."""
        return self.tokens[:, 1:][self._is_target()]

    def image_of_target(self) -> Tensor:
        """Return (M,) int64, row of ``images``, in the order of the targets."""
        return self.image_of_caption[:, None].expand(-1, self.tokens.shape[1] - 1)[self._is_target()]

    def positions(self) -> list[int]:
        """Return the position of each image that counts."""
        positions = torch.zeros(len(self.images), dtype=torch.int64, device=self.position.device)
        positions[self.image_of_caption] = self.position
        return positions[: self.num_images].tolist()

    def without(self, positions: Collection[int]) -> "CaptionBatch":
        """Return the batch without the images at these positions; what is listed as bad stays as it is."""
        rows = [row for row, position in enumerate(self.positions()) if position not in positions]
        if not rows:
            return blank_batch(self.images.shape[-1], device=self.images.device)._replace(bad=self.bad)
        kept = torch.tensor(rows, device=self.images.device)
        captions = torch.isin(self.image_of_caption, kept)
        return self._replace(
            images=self.images[kept],
            tokens=self.tokens[captions],
            image_of_caption=torch.searchsorted(kept, self.image_of_caption[captions]),
            position=self.position[captions],
            caption=self.caption[captions],
            keys=tuple(self.keys[row] for row in rows),
            shards=tuple(self.shards[row] for row in rows),
        )

    def to(self, device: torch.device) -> "CaptionBatch":
        """Return the batch on a device."""
        names = ("images", "tokens", "image_of_caption", "position", "caption")
        return self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def _is_target(self) -> Tensor:
        return self.tokens[:, 1:] != PAD


def blank_batch(size_px: int, *, device: torch.device | None = None) -> CaptionBatch:
    """Return a batch without any image.

    Args:
        size_px: S.
        device: the CPU if not given.
    """
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    images = torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8, device=device)
    return CaptionBatch(images, torch.tensor([[BOS, PAD]], device=device), zero, zero, zero, (), ())


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
    except MemoryError:
        raise  # the machine's fault, not the image's
    except Image.UnidentifiedImageError:  # whose own words are an address in memory
        raise ValueError(f"the image does not decode (it begins with {jpeg[:8]!r})") from None
    except Exception as error:  # damage makes Pillow's readers stumble in many ways: struct.error, TypeError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the image does not decode ({reason})") from error
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
    samples: Sequence[CaptionedJpeg | BadSample],
    vocabulary: Vocabulary,
    *,
    model: ModelConfig,
    max_caption_words: int,
    augmentation: Augmentation | None = None,
) -> CaptionBatch:
    """Decode images, encode captions and pad them to one length.

    Samples that were found to be bad, that have no caption or do not decode are left out, and listed as bad; if no
    other is left, the batch is blank.
    """
    decoded = [_decoded(sample, model.image_size_px, augmentation) for sample in samples]
    bad = tuple(one for one in decoded if isinstance(one, BadSample))
    good = [one for one in decoded if not isinstance(one, BadSample)]
    if not good:
        return blank_batch(model.image_size_px)._replace(bad=bad)
    rows = [
        (image, sample.position, number, [BOS, *vocabulary.encode(caption)[:max_caption_words], EOS])
        for image, (sample, _) in enumerate(good)
        for number, caption in enumerate(sample.captions)
    ]
    tokens = torch.full((len(rows), max(len(ids) for *_, ids in rows)), PAD)
    for row, (*_, ids) in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    image_of_caption, position, caption = (torch.tensor([row[part] for row in rows]) for part in range(3))
    images = torch.stack([image for _, image in good])
    keys, shards = (tuple(getattr(sample, name) for sample, _ in good) for name in ("key", "shard"))
    return CaptionBatch(images, tokens, image_of_caption, position, caption, keys, shards, bad)


def _decoded(
    sample: CaptionedJpeg | BadSample, size_px: int, augmentation: Augmentation | None
) -> tuple[CaptionedJpeg, Tensor] | BadSample:
    """Return a sample with its image, or what is wrong with it."""
    if isinstance(sample, BadSample):
        return sample
    if not sample.captions:
        return BadSample(sample.key, sample.shard, sample.position, "it has no caption")
    try:
        return sample, decode_image(sample.jpeg, size_px, augmentation=augmentation, position=sample.position)
    except ValueError as error:
        return BadSample(sample.key, sample.shard, sample.position, str(error))
