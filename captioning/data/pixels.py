"""Image decoding: from the bytes of an image file to a square of pixels, the centre or a random crop.

Shapes: S pixels per side.
"""

import io
import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from captioning.config import IMAGE_FORMATS, TrainingConfig
from captioning.hashing import fold, uniform

_AUGMENTATION_SITE = 0
_ORIENTATION_TAG = 0x0112


class Augmentation(NamedTuple):
    """Random crops and mirroring of training images.

    Attributes:
        seed: seed of crop and flip, hashed with the image's position in the training stream.
        crop_area: smallest area of a crop, as a fraction of the image's largest square.
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
    """Decode an image to a square: the centre, or a random crop that its position in the training stream seeds.

    Args:
        jpeg: content of an image file (JPEG, PNG, WebP, GIF, BMP, TIFF or PPM); CMYK, greyscale and EXIF-rotated
            images become upright RGB.
        size_px: S, the side of the square in pixels.
        augmentation: random crop and flip; None takes the largest centred square.
        position: position in the training stream.

    Returns:
        (3, S, S) uint8 pixels.

    Raises:
        ValueError: the image does not decode.
    """
    area, left, top, mirror = 1.0, 0.5, 0.5, 1.0
    if augmentation:
        key = fold(augmentation.seed, torch.arange(4), position, _AUGMENTATION_SITE)
        draw, left, top, mirror = uniform(key).tolist()
        area = augmentation.crop_area + (1 - augmentation.crop_area) * draw
    try:
        with Image.open(io.BytesIO(jpeg), formats=IMAGE_FORMATS) as image:
            # libjpeg decodes faster at 1/2, 1/4 or 1/8 of the size; the crop must still have size_px pixels.
            image.draft("RGB", (math.ceil(size_px / area**0.5),) * 2)
            upright = upright_rgb(image)
    except MemoryError:
        raise  # a fault of the machine, not of the image
    except Image.UnidentifiedImageError:  # Pillow's message only has the address of the BytesIO object
        raise ValueError(f"the image does not decode (it begins with {jpeg[:8]!r})") from None
    except Exception as error:  # Pillow's readers raise many types on damaged files: struct.error, TypeError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the image does not decode ({reason})") from error
    side = min(upright.size) * area**0.5
    x, y = (upright.width - side) * left, (upright.height - side) * top
    square = upright.resize((size_px, size_px), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    if augmentation and augmentation.flip and mirror < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.asarray(square).transpose(2, 0, 1).copy())


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB as a viewer shows it: rotated by its EXIF tag, on white where it is transparent."""
    if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = image.convert("RGBA")
        image = Image.new("RGB", opaque.size, "white")
        image.paste(opaque, mask=opaque.getchannel("A"))
    return image.convert("RGB")
