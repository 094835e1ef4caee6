"""JPEG files by libjpeg-turbo: decoding that notices damage, antialiased resizing, and encoding.

Where simplejpeg is not installed, ``decode_jpeg`` leaves every file to Pillow, which passes over most damage.

Shapes: H rows, W columns.
"""

import math
import re
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from captioning.image_limits import JpegHead, read_head, without_metadata

_IS_INSTALLED = find_spec("simplejpeg") is not None

_START_OF_IMAGE = b"\xff\xd8"
# Of libjpeg's warnings, those that say that pixels are wrong; others are about metadata and markers.
_DAMAGE = re.compile(r"premature end|bad (?:Huffman|arithmetic) code|instead of RST|(\d+) extraneous bytes", re.I)
_MAX_PADDING_BYTES = 3  # which some cameras write before the end marker


class JpegHeader(NamedTuple):
    """What is known of a JPEG before it is decoded."""

    width: int
    height: int
    is_cmyk: bool


def read_header(content: bytes, head: JpegHead | None = None) -> JpegHeader | None:
    """Return the header of a JPEG; None if Pillow must read the file.

    Args:
        content: content of the file.
        head: segments before the image, if they have been read.
    """
    if not _IS_INSTALLED or not content.startswith(_START_OF_IMAGE):
        return None
    if size := (head or read_head(content)).size:
        return JpegHeader(*size, is_cmyk=False)
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
    except (ValueError, KeyError):  # KeyError: colours of an unusual resolution
        return None
    return JpegHeader(int(width), int(height), colours in ("CMYK", "YCCK"))


def decode_jpeg(content: bytes, *, at_least: tuple[int, int], header: JpegHeader | None = None) -> np.ndarray | None:
    """Decode a JPEG to the pixels that Pillow would return, without turning it by its EXIF tag.

    Args:
        content: content of the file.
        at_least: width and height that are enough; a larger image is decoded at 1/2, 1/4 or 1/8 of its size, which is
            faster, if it then still has them.
        header: header of the file, if it has been read.

    Returns:
        (H, W, 3) uint8 RGB; None if Pillow must decode the file: CMYK, or a kind that libjpeg-turbo does not know.

    Raises:
        ValueError: some of the pixels are missing or damaged.
    """
    header = header or read_header(content)
    if header is None:
        return None
    width, height = header.width // at_least[0], header.height // at_least[1]
    scale = next((scale for scale in (8, 4, 2) if min(width, height) >= scale), 1)
    pixels = _decode(content, math.ceil(header.width / scale), math.ceil(header.height / scale))
    return None if header.is_cmyk else pixels  # libjpeg-turbo knows no ink; its decoding noticed damage


def _decode(content: bytes, width: int, height: int) -> np.ndarray | None:
    import simplejpeg

    try:
        return simplejpeg.decode_jpeg(content, "rgb", min_width=width, min_height=height)
    except ValueError:  # whatever libjpeg warns about; metadata alone are no reason to refuse the image
        pass
    try:
        return simplejpeg.decode_jpeg(without_metadata(content), "rgb", min_width=width, min_height=height)
    except ValueError as error:
        damage = _DAMAGE.search(str(error))
        if damage and (damage[1] is None or int(damage[1]) > _MAX_PADDING_BYTES):
            raise ValueError(str(error)) from None
        return None


def resize_pixels(
    pixels: np.ndarray, width: int, height: int, *, extent: tuple[float, float] | None = None
) -> np.ndarray:
    """Resize an image by the antialiased bicubic filter of Pillow.

    Args:
        pixels: (H, W, 3) uint8.
        width: width of the result.
        height: height of the result.
        extent: width and height of the part to resize, from the top left, up to a pixel less than W and H: what an
            image that was decoded at a fraction of its size really spans.

    Returns:
        (height, width, 3) uint8.
    """
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # of channels_last strides, which torch keeps
    scale = None
    if extent:  # rounded up, so that torch's size, the product rounded down, is no smaller
        scale = (math.nextafter(height / extent[1], math.inf), math.nextafter(width / extent[0], math.inf))
    size = None if scale else (height, width)
    resized = F.interpolate(batch, size, scale, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Encode an image as a baseline JPEG with colours at half of the resolution.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        quality: JPEG quality, 1 to 100.
    """
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "rgb", "420")
