"""What is stored of an image: decoded once as a check, shrunk if it is large, kept byte for byte if it fits."""

import io
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, features

_ORIENTATION_TAG = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """How images are stored."""

    shorter_side_px: int = 256
    """Larger images are shrunk so that their shorter side has this many pixels; smaller ones are never enlarged."""
    quality: int = 90
    """JPEG quality of the images that are encoded again, 1 to 100."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.shorter_side_px < 1:
            raise ValueError(f"shorter side of {self.shorter_side_px} px holds no picture; use at least 1")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality {self.quality} does not exist; use 1 to 100")


class StoredImage(NamedTuple):
    """A JPEG image and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def codec_versions() -> dict[str, str]:
    """Return the versions that decide about the bytes of an encoded image."""
    return {"pillow": version("pillow"), "libjpeg": features.version("jpg") or "unknown"}


def store_image(content: bytes, spec: ImageSpec) -> StoredImage:
    """Turn the content of an image file into what a shard stores of it.

    Args:
        content: any still image that Pillow reads; CMYK, greyscale, 16-bit and EXIF-rotated ones become upright RGB.
        spec: the wanted size and quality.

    Raises:
        ValueError: the content is empty, truncated or no image.
    """
    if not content:
        raise ValueError("the file is empty; fetch it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                return _store(image, content, spec)
    except Image.UnidentifiedImageError:
        start = content[:8].hex(" ")
        raise ValueError(f"no image format begins with the bytes {start}; fetch it again") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"it does not decode ({error}); fetch it again") from error


def _store(image: Image.Image, content: bytes, spec: ImageSpec) -> StoredImage:
    width, height = image.size
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    is_plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1
    if is_plain and min(width, height) <= spec.shorter_side_px:
        image.load()
        return StoredImage(content, width, height)
    scale = min(1.0, spec.shorter_side_px / min(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # libjpeg decodes at 1/2, 1/4 or 1/8 of the size for less; twice the wanted size keeps the result sharp.
    image.draft(None, (size[0] * 2, size[1] * 2))
    upright = to_rgb(ImageOps.exif_transpose(image))
    if orientation in _QUARTER_TURNS:
        size = size[1], size[0]
    resized = upright if upright.size == size else upright.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=spec.quality, subsampling="4:2:0")
    return StoredImage(buffer.getvalue(), *size)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB: 16-bit values keep their high byte, transparency goes over white."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = image.convert("RGBA")
        white = Image.new("RGB", opaque.size, "white")
        white.paste(opaque, mask=opaque.getchannel("A"))
        return white
    return image.convert("RGB")
