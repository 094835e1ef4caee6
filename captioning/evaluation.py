"""Model + images -> captions -> scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from captioning.batches import decode_image
from captioning.checkpoint import CheckpointDescription
from captioning.decoding import beam_search
from captioning.model import CaptionModel
from captioning.vocabulary import Vocabulary


class WrittenCaption(NamedTuple):
    """What a model writes about one image.

    Attributes:
        captions: best first.
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
            ValueError: an image does not decode.
        """
        size_px = self._description.model.image_size_px
        remaining = iter(jpegs)
        while batch := [decode_image(jpeg, size_px) for jpeg in islice(remaining, self._batch_size)]:
            yield from self._write_batch(torch.stack(batch))

    @torch.no_grad()
    def _write_batch(self, images: Tensor) -> Iterator[WrittenCaption]:
        device = self._model.encoder.mean.device
        found = beam_search(
            self._model.decoder,
            self._model.encoder(images.to(device)),
            beam_size=self._beam_size,
            max_words=self._description.max_caption_words,
        )
        for tokens, log_probability in zip(found.tokens.tolist(), found.log_probability[:, 0].tolist(), strict=True):
            yield WrittenCaption(tuple(self._vocabulary.decode(ids) for ids in tokens), log_probability)


def coco_results(captions: Mapping[int, str]) -> Sequence[dict[str, int | str]]:
    """Return captions by image id as the COCO evaluation reads results."""
    return [{"image_id": image_id, "caption": caption} for image_id, caption in sorted(captions.items())]
