"""Measures of a model without references: empty, repetitive and novel captions, robustness to small image changes."""

import io
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from captioning.config import IMAGE_FORMATS
from captioning.data.pixels import upright_rgb
from captioning.data.tokenizers import PTB, Tokenizer, is_character
from captioning.evaluation.metrics import ImageId

REENCODED_QUALITY = 85
"""JPEG quality of the re-encoded image; its colours have half the resolution."""
CROPPED_PERCENT = 2
"""Share of width and height that the crop removes, half of it at each side, in percent."""
LONGEST_REPEAT_WORDS = 4
"""Largest number of words in a repeated phrase."""
_CROPPED_QUALITY = 95  # high, so that the crop is the only visible change


class Variant(StrEnum):
    """A change of an image that should not change its caption."""

    REENCODED = "reencoded"
    CROPPED = "cropped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """The behaviour of a model on some images; shares are from 0 to 1."""

    num_images: int
    """Number of images with captioned variants."""
    same_when_reencoded: float
    """Share of images with the same caption, word for word, after re-encoding."""
    same_when_cropped: float
    """Share of images with the same caption, word for word, after a slight crop."""
    empty: float
    """Share of captions without words."""
    repeated: float
    """Share of captions in which one to four words occur twice in a row."""
    num_different: int
    """Number of different captions; guards against a model that is robust because it repeats one caption."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diversity:
    """How varied captions are; captions are the same if they have the same words."""

    num_captions: int
    num_different: int
    """Number of different captions."""
    num_empty: int
    """Number of captions without words."""
    num_words: int
    """Number of different words."""
    novel: float | None
    """Share of captions that are none of the training captions, from 0 to 1; None if those were not given."""

    def as_dict(self) -> dict[str, int | float]:
        """Return the numbers by their names for people."""
        found: dict[str, int | float] = {
            "captions": self.num_captions,
            "different captions": self.num_different,
            "captions without words": self.num_empty,
            "different words": self.num_words,
        }
        return found if self.novel is None else {**found, "share of novel captions": self.novel}


def diversity_of(
    captions: Collection[str], tokenizer: Tokenizer = PTB, *, training: Iterable[str] | None = None
) -> Diversity:
    """Return how varied captions are.

    Args:
        captions: untokenized captions, at least one.
        tokenizer: tokenizer of the captions.
        training: untokenized captions of the training images; None if they are not known.
    """
    texts = [tuple(tokenizer.tokenize(caption)) for caption in captions]
    known = None if training is None else {tuple(tokenizer.tokenize(caption)) for caption in training}
    return Diversity(
        num_captions=len(texts),
        num_different=len(set(texts)),
        num_empty=sum(not text for text in texts),
        num_words=len({word for text in texts for word in text}),
        novel=None if known is None else sum(text not in known for text in texts) / len(texts),
    )


def draw_images(num_images: int, num_drawn: int, *, seed: int) -> list[int]:
    """Draw distinct images of a split; return their numbers, ascending.

    Args:
        num_images: number of images in the split.
        num_drawn: number of images to draw; if the split has fewer, all are drawn.
        seed: seed of the draw, 0 or more; from Philox's raw stream, which is the same in every numpy release.
    """
    keys = np.random.Philox(key=seed).random_raw(num_images)
    return sorted(np.argsort(keys, kind="stable")[:num_drawn].tolist())


def make_variant(jpeg: bytes, variant: Variant) -> bytes:
    """Return a variant of an image as a JPEG without metadata; deterministic for one libjpeg version.

    Args:
        jpeg: content of an image file that decodes.
        variant: change to make.
    """
    with Image.open(io.BytesIO(jpeg), formats=IMAGE_FORMATS) as image:
        upright = upright_rgb(image)
    content = io.BytesIO()
    if variant is Variant.REENCODED:
        upright.save(content, "JPEG", quality=REENCODED_QUALITY)
        return content.getvalue()
    x, y = (round(length * CROPPED_PERCENT / 200) for length in upright.size)
    cropped = upright.crop((x, y, upright.width - x, upright.height - y))
    cropped.save(content, "JPEG", quality=_CROPPED_QUALITY, subsampling=0)
    return content.getvalue()


def behaviour_of(
    captions: Mapping[ImageId, str], variants: Mapping[Variant, Mapping[ImageId, str]], *, tokenizer: Tokenizer = PTB
) -> Behaviour:
    """Return the behaviour of a model, from its captions.

    Args:
        captions: caption of each unchanged image, by image id.
        variants: captions of some of the images in each variant, by variant and image id.
        tokenizer: tokenizer of the captions.
    """
    num_images = len(variants[Variant.REENCODED])
    same = {variant: float(same_captions(captions, found).mean()) for variant, found in variants.items()}
    return Behaviour(
        num_images=num_images,
        same_when_reencoded=same[Variant.REENCODED],
        same_when_cropped=same[Variant.CROPPED],
        empty=sum(not tokenizer.tokenize(caption) for caption in captions.values()) / len(captions),
        repeated=sum(has_repetition(caption, tokenizer) for caption in captions.values()) / len(captions),
        num_different=len(set(captions.values())),
    )


def caption_health(captions: Collection[str], *, tokenizer: Tokenizer) -> dict[str, float]:
    """Measure by how much captions of different images differ, and how many are flawed; names are those of metrics."""
    words = [tokenizer.tokenize(caption) for caption in captions]
    counts, num = Counter(map(tuple, words)), max(1, len(words))
    return {
        "health_captions": float(len(words)),
        "health_top_caption_share": max(counts.values(), default=0) / num,
        "health_different_captions": float(len(counts)),
        "health_different_words": float(len({word for caption in words for word in caption})),
        "health_repeated_share": sum(has_repetition(caption, tokenizer) for caption in captions) / num,
        "health_empty_share": sum(not caption for caption in words) / num,
    }


def same_captions(captions: Mapping[ImageId, str], changed: Mapping[ImageId, str]) -> np.ndarray:
    """Return which images keep their caption, word for word, when they change.

    Args:
        captions: caption of each unchanged image, by image id.
        changed: captions of some of the images after a change, by image id.

    Returns:
        (N, 1) float64, by ascending image id of the changed images: 1 for the same caption, else 0.
    """
    return np.array([[captions[image_id] == changed[image_id]] for image_id in sorted(changed)], np.float64)


def has_repetition(caption: str, tokenizer: Tokenizer = PTB) -> bool:
    """Return whether one to four words occur twice in a row, as in "a dog on a dog on the grass".

    A single character of a script without spaces may be doubled: many Chinese words are.
    """
    words = tokenizer.tokenize(caption)
    return any(
        words[start : start + length] == words[start + length : start + 2 * length]
        and not (length == 1 and is_character(words[start]))
        for length in range(1, LONGEST_REPEAT_WORDS + 1)
        for start in range(len(words) - 2 * length + 1)
    )
