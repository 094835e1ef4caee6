"""How a model behaves, whatever people wrote: are its captions steady, does it say something, does it say it twice."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from captioning.data.pixels import upright_rgb
from captioning.data.tokenizer import tokenize

REENCODED_QUALITY = 85
"""JPEG quality of the re-encoded image, with colours at half the resolution."""
CROPPED_PERCENT = 2
"""Of width and height that the crop takes away, half of it at each end."""
LONGEST_REPEAT_WORDS = 4
_CROPPED_QUALITY = 95  # so that the crop is all that changes


class Variant(StrEnum):
    """A change of an image that nobody would describe in other words."""

    REENCODED = "reencoded"
    CROPPED = "cropped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """Figures of a model, shares in 0..1."""

    num_images: int
    """Whose variants were captioned."""
    same_when_reencoded: float
    """Share of the images whose caption stays the same, word for word, when they are re-encoded."""
    same_when_cropped: float
    """The same for images that are slightly cropped."""
    empty: float
    """Share of all captions that have no word."""
    repeated: float
    """Share of all captions that say one to four words twice running."""
    num_different: int
    """Captions that differ from one another; a model that says the same of all images is steady, too."""


def choose_images(num_images: int, num_chosen: int, *, seed: int) -> list[int]:
    """Draw different numbers below ``num_images``, ascending; all of them if there are not enough.

    Args:
        num_images: to draw from.
        num_chosen: to draw.
        seed: 0 or more; of Philox's raw stream, which numpy keeps the same across releases.
    """
    keys = np.random.Philox(key=seed).random_raw(num_images)
    return sorted(np.argsort(keys, kind="stable")[:num_chosen].tolist())


def vary(jpeg: bytes, variant: Variant) -> bytes:
    """Return a variant of an image, a JPEG without metadata; the same input gives the same bytes with one libjpeg.

    Args:
        jpeg: an image that decodes.
        variant: what changes.
    """
    with Image.open(io.BytesIO(jpeg)) as image:
        upright = upright_rgb(image)
    content = io.BytesIO()
    if variant is Variant.REENCODED:
        upright.save(content, "JPEG", quality=REENCODED_QUALITY)
        return content.getvalue()
    x, y = (round(length * CROPPED_PERCENT / 200) for length in upright.size)
    cropped = upright.crop((x, y, upright.width - x, upright.height - y))
    cropped.save(content, "JPEG", quality=_CROPPED_QUALITY, subsampling=0)
    return content.getvalue()


def behaviour_of(captions: Mapping[int, str], variants: Mapping[Variant, Mapping[int, str]]) -> Behaviour:
    """Return a model's figures.

    Args:
        captions: of the images as they are, by image id.
        variants: for each variant, captions of some of the images.
    """
    num_images = len(variants[Variant.REENCODED])
    same = {
        variant: sum(captions[image_id] == caption for image_id, caption in found.items()) / num_images
        for variant, found in variants.items()
    }
    return Behaviour(
        num_images=num_images,
        same_when_reencoded=same[Variant.REENCODED],
        same_when_cropped=same[Variant.CROPPED],
        empty=sum(not tokenize(caption) for caption in captions.values()) / len(captions),
        repeated=sum(map(repeats, captions.values())) / len(captions),
        num_different=len(set(captions.values())),
    )


def repeats(caption: str) -> bool:
    """Return whether one to four words occur twice running, as in "a dog on a dog on the grass"."""
    words = tokenize(caption)
    return any(
        words[start : start + length] == words[start + length : start + 2 * length]
        for length in range(1, LONGEST_REPEAT_WORDS + 1)
        for start in range(len(words) - 2 * length + 1)
    )
