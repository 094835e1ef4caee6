"""Model + images -> captions -> scores."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from captioning.data.pixels import decode_image
from captioning.data.vocabulary import Vocabulary
from captioning.generation.beam_search import beam_search
from captioning.model.caption_model import CaptionModel
from captioning.training.checkpoint import CheckpointDescription


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
            yield from self.write_batch(torch.stack(batch))

    def _decode(self, number: int, jpeg: bytes) -> Tensor:
        try:
            return self.decode(jpeg)
        except ValueError as error:
            raise ValueError(f"image {number}: {error}; leave it out, or fetch it again") from error

    def decode(self, content: bytes) -> Tensor:
        """Return an image as the model sees it, (3, S, S) uint8.

        Raises:
            ValueError: it does not decode.
        """
        return decode_image(content, self._description.model.image_size_px)

    @torch.no_grad()
    def write_batch(
        self, images: Tensor, *, beam_size: int | None = None, max_words: int | None = None
    ) -> list[WrittenCaption]:
        """Caption decoded images at once.

        Args:
            images: (B, 3, S, S) uint8.
            beam_size: the captioner's own if None.
            max_words: of a caption; as in training if None.
        """
        device = self._model.encoder.mean.device
        found = beam_search(
            self._model.decoder,
            self._model.encoder(images.to(device)),
            beam_size=beam_size or self._beam_size,
            max_words=max_words or self._description.max_caption_words,
        )
        rows = zip(found.tokens.tolist(), found.log_probability.tolist(), strict=True)
        return [self._written(tokens, log_probabilities) for tokens, log_probabilities in rows]

    def _written(self, tokens: Sequence[Sequence[int]], log_probabilities: Sequence[float]) -> WrittenCaption:
        found = [ids for ids, value in zip(tokens, log_probabilities, strict=True) if value > -math.inf]
        return WrittenCaption(tuple(self._vocabulary.decode(ids) for ids in found), log_probabilities[0])


def coco_results(captions: Mapping[int, str]) -> Sequence[dict[str, int | str]]:
    """Return captions by image id as the COCO evaluation reads results."""
    return [{"image_id": image_id, "caption": caption} for image_id, caption in sorted(captions.items())]
