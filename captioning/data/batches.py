"""Batches: images and captions as tensors.

Shapes: B images, S pixels per side, R regions, C channels, N captions, T words with <bos> and <eos>, M targets.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captioning.data.pixels import Augmentation, decode_into, draw_crops
from captioning.data.vocabulary import BOS, EOS, PAD, Vocabulary


class BadSample(NamedTuple):
    """A sample that cannot be trained on.

    Attributes:
        key: key of the sample.
        shard: name of the sample's shard.
        position: position in the training stream; in validation, the number within the split.
        reason: what is wrong with the sample, as a clause.
    """

    key: str
    shard: str
    position: int
    reason: str


class EncodedSample(NamedTuple):
    """The captions of one sample as word ids.

    Attributes:
        key: key of the sample.
        position: position in the training stream.
        shard: name of the sample's shard.
        words: (L,) int32 word ids of all captions, at least one, as ``encode_captions`` returns them.
    """

    key: str
    position: int
    shard: str
    words: np.ndarray


class EncodedJpeg(NamedTuple):
    """A sample whose image is yet to be decoded.

    Attributes:
        captions: the sample's captions.
        content: content of the image file.
    """

    captions: EncodedSample
    content: bytes

    @property
    def position(self) -> int:
        """Return the position in the training stream."""
        return self.captions.position


class SampledCaptions(NamedTuple):
    """What is known of captions that the model itself has sampled.

    Attributes:
        weight: (N,) float64 factor on each caption's loss.
        reward: (N,) float64 reward of each caption.
        log_probability: (N,) float32 log-probability of each caption, in nats.
    """

    weight: Tensor
    reward: Tensor
    log_probability: Tensor


class CaptionBatch(NamedTuple):
    """Images with all of their captions.

    A batch without images is blank: it holds one black image and a caption without targets. The model computes it like
    any other batch, and it adds exactly 0 to the loss and the gradient.

    Attributes:
        images: (B, 3, S, S) uint8 pixels, or (B, R, C) float16 features of a frozen encoder.
        tokens: (N, T) int64 word ids: <bos>, the words, <eos>, then <pad>.
        image_of_caption: (N,) int64 row of ``images`` for each caption.
        position: (N,) int64 position of each caption's image in the training stream.
        caption: (N,) int64 number of each caption within its image.
        target: (M,) int64 index of each target, all words except <bos> and <pad>, in the flattened ``tokens[:, 1:]``.
            Computed where the batch is made: a device would have to be waited for to learn M.
        keys: key of each of the B images; empty for a blank batch.
        shards: name of the shard of each of the B images; empty for a blank batch.
        bad: samples of this batch that were left out.
        sampled: what is known of sampled captions; None for captions by people.
    """

    images: Tensor
    tokens: Tensor
    image_of_caption: Tensor
    position: Tensor
    caption: Tensor
    target: Tensor
    keys: tuple[str, ...]
    shards: tuple[str, ...]
    bad: tuple[BadSample, ...] = ()
    sampled: SampledCaptions | None = None

    @property
    def num_images(self) -> int:
        """Return the number of images; 0 for a blank batch."""
        return len(self.keys)

    @property
    def num_targets(self) -> int:
        """Return M, the number of words to predict: all except <bos> and <pad>."""
        return len(self.target)

    def targets(self) -> Tensor:
        """Return the ids of the words to predict, caption by caption: (M,) int64."""
        return self.tokens[:, 1:].flatten().index_select(0, self.target)

    def image_of_target(self) -> Tensor:
        """Return the row of ``images`` for each target, in the order of ``targets``: (M,) int64."""
        return self.image_of_caption.index_select(0, self._caption_of_target())

    def weights(self) -> Tensor | None:
        """Return the factor on the loss of each target, (M,) float64; None for captions by people."""
        return self.sampled and self.sampled.weight.index_select(0, self._caption_of_target())

    def _caption_of_target(self) -> Tensor:
        return self.target // (self.tokens.shape[1] - 1)

    def positions(self) -> list[int]:
        """Return the position of each image in the training stream; empty for a blank batch."""
        positions = torch.zeros(len(self.images), dtype=torch.int64, device=self.position.device)
        positions[self.image_of_caption] = self.position
        return positions[: self.num_images].tolist()

    def with_tokens(self, tokens: Tensor) -> "CaptionBatch":
        """Return the batch with other word ids, (N, T) int64."""
        return self._replace(tokens=tokens, target=_target_index(tokens))

    def without(self, positions: Collection[int]) -> "CaptionBatch":
        """Return the batch without the images at these positions; ``bad`` does not change."""
        rows = [row for row, position in enumerate(self.positions()) if position not in positions]
        if not rows:
            return _blank(torch.zeros_like(self.images[:1]))._replace(bad=self.bad)
        kept = torch.tensor(rows, device=self.images.device)
        captions = torch.isin(self.image_of_caption, kept)
        return self.with_tokens(self.tokens[captions])._replace(
            images=self.images[kept],
            image_of_caption=torch.searchsorted(kept, self.image_of_caption[captions]),
            position=self.position[captions],
            caption=self.caption[captions],
            keys=tuple(self.keys[row] for row in rows),
            shards=tuple(self.shards[row] for row in rows),
            sampled=self.sampled and SampledCaptions(*(values[captions] for values in self.sampled)),
        )

    def to(self, device: torch.device) -> "CaptionBatch":
        """Return the batch on a device; copies from pinned memory are asynchronous."""
        names = ("images", "tokens", "image_of_caption", "position", "caption", "target")
        moved = self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in names})
        sampled = self.sampled and SampledCaptions(*(one.to(device, non_blocking=True) for one in self.sampled))
        return moved._replace(sampled=sampled)


def blank_batch(size_px: int, *, device: torch.device | None = None) -> CaptionBatch:
    """Return a batch without images.

    Args:
        size_px: S, the side of the black image.
        device: device of the tensors; the CPU by default.
    """
    return _blank(torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8, device=device))


def _blank(image: Tensor) -> CaptionBatch:
    zero = torch.zeros(1, dtype=torch.int64, device=image.device)
    tokens = torch.tensor([[BOS, PAD]], device=image.device)
    return CaptionBatch(image, tokens, zero, zero, zero, _target_index(tokens), (), ())


def _target_index(tokens: Tensor) -> Tensor:
    """Return the indices of the targets of (N, T) word ids in the flattened ``tokens[:, 1:]``."""
    return (tokens[:, 1:] != PAD).flatten().nonzero().flatten()


def encode_captions(captions: Sequence[str], vocabulary: Vocabulary, *, max_words: int) -> np.ndarray:
    """Return one row of word ids, (L,) int32: <bos>, at most ``max_words`` words and <eos> of each caption in turn."""
    encoded = (vocabulary.encode(caption)[:max_words] for caption in captions)
    return np.fromiter((number for ids in encoded for number in (BOS, *ids, EOS)), np.int32)


def collate(images: Tensor, samples: Sequence[EncodedSample], bad: tuple[BadSample, ...] = ()) -> CaptionBatch:
    """Collate images and captions into a batch, with the captions padded to one length.

    Args:
        images: (B, 3, S, S) uint8 pixels or (B, R, C) features of the images, as in ``CaptionBatch``.
        samples: captions of the images, in the same order; if empty, the batch is blank.
        bad: samples that were left out.
    """
    if not samples:
        return _blank(images.new_zeros(1, *images.shape[1:]))._replace(bad=bad)
    words = np.concatenate([sample.words for sample in samples])
    ends = np.flatnonzero(words == EOS) + 1
    lengths = np.diff(ends, prepend=0)
    tokens = np.full((len(ends), lengths.max()), PAD, np.int64)
    tokens[np.arange(lengths.max()) < lengths[:, None]] = words
    num_captions = [int((sample.words == EOS).sum()) for sample in samples]
    caption = np.concatenate([np.arange(count) for count in num_captions])
    rows = np.repeat(np.arange(len(samples)), num_captions)
    position = np.array([sample.position for sample in samples])[rows]
    tokens, image_of_caption, positions, captions = map(torch.from_numpy, (tokens, rows, position, caption))
    keys, shards = (tuple(getattr(sample, name) for sample in samples) for name in ("key", "shard"))
    target = _target_index(tokens)
    return CaptionBatch(images, tokens, image_of_caption, positions, captions, target, keys, shards, bad)


def decode_batch(
    samples: Sequence[EncodedJpeg | BadSample],
    size_px: int,
    *,
    augmentation: Augmentation | None = None,
    by_pillow: bool = False,
) -> CaptionBatch:
    """Decode the images of samples straight into a batch, which is in pinned memory where a GPU is in use.

    The batch leaves out images that do not decode, and lists them in ``bad`` together with the samples that came as
    bad. If no sample is left, the batch is blank.

    Args:
        samples: samples of the batch, in order.
        size_px: S, the side of the images in pixels.
        augmentation: random crop and flip of training images; None takes the largest centred square.
        by_pillow: as in ``decode_into``.
    """
    pin = torch.cuda.is_initialized()  # not in a loader process, where the data loader pins what it receives
    # Of channels_last strides, as decoders write pixels and as the encoder computes: nothing is transposed in between.
    images = torch.empty(len(samples), size_px, size_px, 3, dtype=torch.uint8, pin_memory=pin).permute(0, 3, 1, 2)
    crops = draw_crops(augmentation, [sample.position for sample in samples])
    good: list[EncodedSample] = []
    bad: list[BadSample] = []
    for sample, crop in zip(samples, crops, strict=True):
        if isinstance(sample, BadSample):
            bad.append(sample)
            continue
        try:
            decode_into(images[len(good)], sample.content, crop, by_pillow=by_pillow)
        except ValueError as error:  # the next image takes its row
            bad.append(BadSample(sample.captions.key, sample.captions.shard, sample.position, str(error)))
        else:
            good.append(sample.captions)
    return collate(images[: len(good)], good, tuple(bad))
