"""Model + images -> captions -> scores."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from captioning.checkpoint import CheckpointDescription
from captioning.decoding import beam_search
from captioning.model import CaptionModel
from captioning.pixels import decode_image
from captioning.vocabulary import Vocabulary


class WrittenCaption(NamedTuple):
    """What a model writes about one image.

    Attributes:
        captions: best first; fewer than the beam only if the vocabulary makes no more.
        log_probability: of the best, in nats.
    """

    captions: tuple[str, ...]
    log_probability: float


class Captioner:
    """A model with what it needs to caption images.

    Args:
        model: in eval mode.
        vocabulary: of the model.
        description: of the checkpoint that it comes from.
        beam_size: beginnings of a caption held at every step; 1 is greedy.
        batch_size: images at once.
    """

    def __init__(
        self,
        model: CaptionModel,
        vocabulary: Vocabulary,
        description: CheckpointDescription,
        *,
        beam_size: int = 3,
        batch_size: int = 32,
    ) -> None:
        self._model, self._vocabulary, self._description = model, vocabulary, description
        self._beam_size, self._batch_size = beam_size, batch_size

    def write(self, jpegs: Iterable[bytes]) -> Iterator[WrittenCaption]:
        """Caption images, in order.

        Raises:
            ValueError: an image does not decode; the message has its number, from 0.
        """
        images = (self._decode(number, jpeg) for number, jpeg in enumerate(jpegs))
        while batch := list(islice(images, self._batch_size)):
            yield from self._write_batch(torch.stack(batch))

    def _decode(self, number: int, jpeg: bytes) -> Tensor:
        try:
            return decode_image(jpeg, self._description.model.image_size_px)
        except ValueError as error:
            raise ValueError(f"image {number}: {error}; leave it out, or fetch it again") from error

    @torch.no_grad()
    def _write_batch(self, images: Tensor) -> list[WrittenCaption]:
        device = self._model.encoder.mean.device
        found = beam_search(
            self._model.decoder,
            self._model.encoder(images.to(device)),
            beam_size=self._beam_size,
            max_words=self._description.max_caption_words,
        )
        rows = zip(found.tokens.tolist(), found.log_probability.tolist(), strict=True)
        return [self._written(tokens, log_probabilities) for tokens, log_probabilities in rows]

    def _written(self, tokens: Sequence[Sequence[int]], log_probabilities: Sequence[float]) -> WrittenCaption:
        found = [ids for ids, value in zip(tokens, log_probabilities, strict=True) if value > -math.inf]
        return WrittenCaption(tuple(self._vocabulary.decode(ids) for ids in found), log_probabilities[0])


def coco_results(captions: Mapping[int, str]) -> Sequence[dict[str, int | str]]:
    """Return captions by image id as the COCO evaluation reads results."""
    return [{"image_id": image_id, "caption": caption} for image_id, caption in sorted(captions.items())]
