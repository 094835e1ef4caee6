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
from captioning.image_limits import count_scans, require_few_scans

_AUGMENTATION_SITE = 0
_ORIENTATION_TAG = 0x0112
_STRIP_PIXELS = 2**20


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
        num_scans = count_scans(jpeg)
        with Image.open(io.BytesIO(jpeg), formats=IMAGE_FORMATS) as image:
            require_few_scans(num_scans, image.width * image.height)
            # libjpeg decodes faster at 1/2, 1/4 or 1/8 of the size; the crop must still have size_px pixels.
            image.draft("RGB", (math.ceil(size_px / area**0.5),) * 2)
            upright = _upright(image)
            side = min(upright.size) * area**0.5
            x, y = (upright.width - side) * left, (upright.height - side) * top
            square = _square(upright, size_px, x, y, side)
    except MemoryError:
        raise  # a fault of the machine, not of the image
    except Image.UnidentifiedImageError:  # Pillow's message only has the address of the BytesIO object
        raise ValueError(f"the image does not decode (it begins with {jpeg[:8]!r})") from None
    except Exception as error:  # Pillow's readers raise many types on damaged files: struct.error, TypeError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the image does not decode ({reason})") from error
    if augmentation and augmentation.flip and mirror < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.asarray(square).transpose(2, 0, 1).copy())


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB as a viewer shows it: rotated by its EXIF tag, on white where it is transparent.

    Raises:
        ValueError: the pixels are floating-point numbers, whose range is not known.
    """
    return _to_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION_TAG, 1) != 1 else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of an unknown range; save it with 8 bits per colour")
    if image.mode.startswith("I"):  # 16 bits, of which Pillow would clip all values above 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.new("RGB", opaque.size, "white")
        image.paste(opaque, mask=opaque.getchannel("A"))
    return image.convert("RGB")


def _square(image: Image.Image, size_px: int, x: float, y: float, side: float) -> Image.Image:
    """Return a square of an image at another size, in RGB.

    The colours of some rows of a large image are converted at a time. Converting the whole image takes several times
    its memory, which is 0.3 GiB for the largest that is allowed.
    """
    if image.width * image.height <= _STRIP_PIXELS:
        return _to_rgb(image).resize((size_px, size_px), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    margin = max(1.0, side / size_px)  # of pixels that a filter at the square's edge also reads
    left, top = math.floor(max(0, x - margin)), math.floor(max(0, y - margin))
    right, bottom = (math.ceil(min(end, at + side + margin)) for end, at in zip(image.size, (x, y), strict=True))
    narrow = Image.new("RGB", (size_px, bottom - top))
    num_rows = max(1, _STRIP_PIXELS // (right - left))
    for row in range(top, bottom, num_rows):
        strip = _to_rgb(image.crop((left, row, right, min(row + num_rows, bottom))))
        box = (x - left, 0, x - left + side, strip.height)
        narrow.paste(strip.resize((size_px, strip.height), Image.Resampling.BILINEAR, box=box), (0, row - top))
    return narrow.resize((size_px, size_px), Image.Resampling.BILINEAR, box=(0, y - top, size_px, y - top + side))
