"""The captioner: image files to captions, with a trained model, by beam search or sampling."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from captioning.config import BATCH_SIZES, Precision
from captioning.data.pixels import decode_image
from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.metrics import ImageId
from captioning.generation.config import GenerationConfig
from captioning.generation.generator import generate
from captioning.hashing import content_keys
from captioning.model.caption_model import CaptionModel
from captioning.model.precision import autocast
from captioning.training.checkpoint_description import CheckpointDescription


class ImageCaptions(NamedTuple):
    """The captions that a model generates for one image.

    Attributes:
        captions: captions, best first; fewer than the beam size only if the search finds no more that differ.
        log_probability: log-probability of the best caption, in nats.
    """

    captions: tuple[str, ...]
    log_probability: float


class Captioner:
    """A trained model that captions images.

    Args:
        model: model in eval mode.
        vocabulary: vocabulary of the model.
        description: description of the model's checkpoint.
        generation: settings of the search for captions; None for the defaults.
        batch_size: number of images in a batch.
        precision: precision in which the model computes.

    Raises:
        ValueError: the batch size is out of range, or the settings ask for more words than the model writes.
    """

    def __init__(
        self,
        model: CaptionModel,
        vocabulary: Vocabulary,
        description: CheckpointDescription,
        *,
        generation: GenerationConfig | None = None,
        batch_size: int = 32,
        precision: Precision = "fp32",
    ) -> None:
        self._model, self._vocabulary, self._description = model, vocabulary, description
        self._generation, self._batch_size = generation or GenerationConfig(), batch_size
        self._precision: Precision = precision
        least, most = BATCH_SIZES
        if not least <= batch_size <= most:
            raise ValueError(f"a batch size of {batch_size} is out of range; use {least} to {most}")
        self._generation.check_words(description.max_caption_words)
        model.encoder.fold(precision)

    def caption(
        self, jpegs: Iterable[bytes], *, on_bad: Callable[[int, str], None] | None = None
    ) -> Iterator[ImageCaptions]:
        """Caption image files, in order.

        Args:
            jpegs: content of each image file.
            on_bad: function called with the number, from 0, of an image that does not decode, and the reason; the image
                is then left out. None for an error.

        Raises:
            ValueError: an image does not decode; the message gives the image's number, from 0.
        """
        images = self._decoded(jpegs, on_bad)
        while batch := list(islice(images, self._batch_size)):
            yield from self.caption_batch(torch.stack(batch))

    def _decoded(self, jpegs: Iterable[bytes], on_bad: Callable[[int, str], None] | None) -> Iterator[Tensor]:
        for number, jpeg in enumerate(jpegs):
            try:
                image = self.decode(jpeg)
            except ValueError as error:
                if on_bad is None:
                    raise ValueError(f"image {number}: {error}; leave it out, or fetch it again") from error
                on_bad(number, str(error))
            else:
                yield image

    def decode(self, content: bytes) -> Tensor:
        """Decode an image file to the model's input, (3, S, S) uint8.

        Raises:
            ValueError: the image does not decode.
        """
        return decode_image(content, self._description.model.image_size_px)

    @torch.no_grad()
    def caption_batch(
        self, images: Tensor, *, generation: GenerationConfig | None = None, max_words: int | None = None
    ) -> list[ImageCaptions]:
        """Caption a batch of decoded images.

        Args:
            images: (B, 3, S, S) uint8 pixels.
            generation: settings of the search for captions; None takes the captioner's.
            max_words: largest number of words in a caption; None takes the limit in training.

        Raises:
            ValueError: the settings ask for more words than ``max_words``.
        """
        generation = generation or self._generation
        # By content, so that an image's sample depends neither on its name nor on its place among others.
        keys = content_keys(images) if generation.is_sampling else torch.zeros(len(images), dtype=torch.int64)
        device = self._model.encoder.mean.device
        with autocast(self._precision, device):
            found = generate(
                self._model.decoder,
                self._model.encoder(images.to(device)),
                keys.to(device),
                config=generation,
                max_words=max_words or self._description.max_caption_words,
            )
        rows = zip(found.tokens.tolist(), found.log_probability.tolist(), strict=True)
        return [self._decode_captions(tokens, log_probabilities) for tokens, log_probabilities in rows]

    def _decode_captions(self, tokens: Sequence[Sequence[int]], log_probabilities: Sequence[float]) -> ImageCaptions:
        found = [ids for ids, value in zip(tokens, log_probabilities, strict=True) if value > -math.inf]
        return ImageCaptions(tuple(self._vocabulary.decode(ids) for ids in found), log_probabilities[0])


def coco_results(captions: Mapping[ImageId, str]) -> Sequence[dict[str, ImageId]]:
    """Return captions in the format of a COCO results file.

    Args:
        captions: caption of each image, by image id.
    """
    return [{"image_id": image_id, "caption": caption} for image_id, caption in sorted(captions.items())]
