"""Image decoding: from the bytes of an image file to a square of pixels, the centre or a random crop.

Shapes: S pixels per side.
"""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from captioning.config import IMAGE_FORMATS, TrainingConfig
from captioning.data.jpeg import decode_jpeg, read_header
from captioning.hashing import fold, uniform
from captioning.image_limits import count_scans, opening_of, read_head, require_few_scans, without_text

_AUGMENTATION_SITE = 0
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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


class Crop(NamedTuple):
    """A square of an image.

    Attributes:
        area: area, as a fraction of the image's largest square.
        left: where the square lies between the image's left edge, 0, and its right edge, 1.
        top: where the square lies between the image's upper edge, 0, and its lower edge, 1.
        is_mirrored: whether left and right are exchanged.
    """

    area: float
    left: float
    top: float
    is_mirrored: bool


CENTRE = Crop(1.0, 0.5, 0.5, False)
"""The largest centred square."""


def draw_crops(augmentation: Augmentation | None, positions: Sequence[int]) -> list[Crop]:
    """Return the crop of each position in the training stream; without augmentation the centre."""
    if augmentation is None:
        return [CENTRE] * len(positions)
    seed, smallest, flip = augmentation
    keys = fold(seed, torch.arange(4), torch.tensor(positions, dtype=torch.int64)[:, None], _AUGMENTATION_SITE)
    return [
        Crop(smallest + (1 - smallest) * area, left, top, flip and mirror < 0.5)
        for area, left, top, mirror in uniform(keys).tolist()
    ]


def decode_image(
    content: bytes,
    size_px: int,
    *,
    augmentation: Augmentation | None = None,
    position: int = 0,
    by_pillow: bool = False,
) -> Tensor:
    """Decode an image to a square: the centre, or a random crop that its position in the training stream seeds.

    Args:
        content: content of an image file (JPEG, PNG, WebP, GIF, BMP, TIFF or PPM); CMYK, greyscale and EXIF-rotated
            images become upright RGB.
        size_px: S, the side of the square in pixels.
        augmentation: random crop and flip; None takes the largest centred square.
        position: position in the training stream.
        by_pillow: as in ``decode_into``.

    Returns:
        (3, S, S) uint8 pixels.

    Raises:
        ValueError: the image does not decode.
    """
    square = torch.empty(3, size_px, size_px, dtype=torch.uint8)
    decode_into(square, content, draw_crops(augmentation, [position])[0], by_pillow=by_pillow)
    return square


def decode_into(square: Tensor, content: bytes, crop: Crop, *, by_pillow: bool = False) -> None:
    """Decode a square of an image into memory that is there already, such as a row of a batch.

    Args:
        square: (3, S, S) uint8 in CPU memory, best with the channels last in memory; its content is undefined if the
            image does not decode.
        content: content of an image file.
        crop: square of the image.
        by_pillow: whether Pillow decodes and resizes JPEGs too, as it did when earlier releases made their shard sets:
            it rounds differently, and passes over most damage.

    Raises:
        ValueError: the image does not decode.
    """
    size_px = square.shape[-1]
    try:
        pixels = None if by_pillow else _square_of_jpeg(content, size_px, crop)
        if pixels is None:
            pixels = _square_by_pillow(content, size_px, crop, is_exact=by_pillow)
    except MemoryError:
        raise  # a fault of the machine, not of the image
    except Image.UnidentifiedImageError:  # Pillow's message only has the address of the BytesIO object
        raise ValueError(f"the image does not decode (it {opening_of(content)})") from None
    except Exception as error:  # Pillow's readers raise many types on damaged files: struct.error, TypeError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the image does not decode ({reason})") from error
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    square.copy_(planes.flip(2) if crop.is_mirrored else planes)


def _square_of_jpeg(content: bytes, size_px: int, crop: Crop) -> np.ndarray | None:
    """Return (S, S, 3) pixels of a JPEG, or None if Pillow must decode the file."""
    head = read_head(content)
    header = read_header(content, head)
    if header is None or header.width * header.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        return None
    if not head.has_one_scan:
        require_few_scans(count_scans(content), header.width * header.height)
    least = math.ceil(size_px / crop.area**0.5)
    pixels = decode_jpeg(content, at_least=(least, least), header=header)
    if pixels is None:
        return None
    if head.has_exif and (turn := _turn_of_jpeg(content)) is not None:
        pixels = np.array(Image.fromarray(pixels).transpose(turn))
    x, y, side = _whole_pixels(pixels.shape[1], pixels.shape[0], crop)
    cropped = torch.from_numpy(pixels[y : y + side, x : x + side])[None].permute(0, 3, 1, 2)
    square = F.interpolate(cropped, (size_px, size_px), mode="bilinear", antialias=True)
    return square[0].permute(1, 2, 0).numpy()


def _turn_of_jpeg(content: bytes) -> Image.Transpose | None:
    count_scans(content)  # which also limits the number of segments that Pillow reads
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        return _turn_of(image)


def _square_by_pillow(content: bytes, size_px: int, crop: Crop, *, is_exact: bool) -> np.ndarray:
    num_scans = count_scans(content)
    with Image.open(io.BytesIO(without_text(content)), formats=IMAGE_FORMATS) as image:
        require_few_scans(num_scans, image.width * image.height)
        # libjpeg decodes faster at 1/2, 1/4 or 1/8 of the size; the crop must still have size_px pixels.
        image.draft("RGB", (math.ceil(size_px / crop.area**0.5),) * 2)
        upright = _upright(image)
        x, y, side = (_part_of_pixels if is_exact else _whole_pixels)(upright.width, upright.height, crop)
        square = _square(upright, size_px, x, y, side)
    return np.array(square)


def _part_of_pixels(width: int, height: int, crop: Crop) -> tuple[float, float, float]:
    """Return the left and upper edge and the side of a crop, in pixels."""
    side = min(width, height) * crop.area**0.5
    return (width - side) * crop.left, (height - side) * crop.top, side


def _whole_pixels(width: int, height: int, crop: Crop) -> tuple[int, int, int]:
    """Return the same as ``_part_of_pixels``, in whole pixels."""
    side = max(1, round(min(width, height) * crop.area**0.5))
    return round((width - side) * crop.left), round((height - side) * crop.top), side


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB as a viewer shows it: rotated by its EXIF tag, on white where it is transparent.

    Raises:
        ValueError: the pixels are floating-point numbers, whose range is not known.
    """
    return _to_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # Pillow turns a TIFF upright on load, and drops its orientation
    turn = _turn_of(image)
    return image if turn is None else image.transpose(turn)


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return what makes an image upright; None if it is, or if its Exif is damaged."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except MemoryError:
        raise
    except Exception:  # Pillow raises many types for damaged Exif: struct.error, TypeError, ...
        return None


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
