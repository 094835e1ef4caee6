"""Images as shards store them: decoded once as a check, shrunk if large, kept byte for byte if they fit."""

import io
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from PIL import Image, features

# No other formats: some of Pillow's readers start programs, such as Ghostscript for EPS.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_LONGEST_SIDE_PX = 65_500  # libjpeg's limit
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
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """Size and quality of stored images."""

    shorter_side_px: int = 256
    """Larger images are shrunk so that their shorter side has this many pixels; smaller ones are never enlarged."""
    quality: int = 90
    """JPEG quality, 1 to 100, of images that are encoded again."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.shorter_side_px < 1:
            raise ValueError(f"shorter_side_px {self.shorter_side_px} is too small; use 1 or more")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality {self.quality} is out of range; use 1 to 100")


class StoredImage(NamedTuple):
    """A JPEG image and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def codec_versions() -> dict[str, str]:
    """Return the versions of the libraries that determine the bytes of an encoded image."""
    libjpeg = features.version("libjpeg_turbo") or features.version("jpg") or "unknown"
    return {"pillow": version("pillow"), "libjpeg": libjpeg}


def store_image(content: bytes, spec: ImageSpec) -> StoredImage:
    """Convert the content of an image file to the JPEG that a shard stores.

    Args:
        content: bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM file; CMYK, greyscale, 16-bit, transparent and
            EXIF-rotated images become upright RGB, and of an animation the first frame is taken.
        spec: size and quality of the result.

    Raises:
        ValueError: the content is empty, truncated, not an image, or far too large.
    """
    if not content:
        raise ValueError("it is empty; fetch it again")
    image, fits = _decode(content, spec.shorter_side_px)
    if fits:
        return StoredImage(content, *image.size)
    if max(image.size) > _LONGEST_SIDE_PX:
        raise ValueError(f"its side of {max(image.size)} px exceeds JPEG's {_LONGEST_SIDE_PX} px; crop it first")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=spec.quality, subsampling="4:2:0", comment=b"")
    return StoredImage(buffer.getvalue(), *image.size)


def _decode(content: bytes, shorter_side_px: int) -> tuple[Image.Image, bool]:
    """Return the image at the size to store, and whether its content can be stored unchanged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which is not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                return _shrink(image, content, shorter_side_px)
    except Image.UnidentifiedImageError:
        reason = f"it begins with {content[:8]!r} and cannot be read as {', '.join(_FORMATS)}"
        raise ValueError(f"{reason}; fetch it again, or save it as JPEG") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"it has more pixels than the {Image.MAX_IMAGE_PIXELS} allowed; shrink it first") from None
    except MemoryError:
        raise  # a fault of this machine, which must not decide what a shard contains
    except Exception as error:  # Pillow raises many types for damaged files: struct.error, KeyError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it does not decode ({reason}); fetch it again") from error


def _shrink(image: Image.Image, content: bytes, shorter_side_px: int) -> tuple[Image.Image, bool]:
    if image.format == "TIFF":
        image.load()  # Pillow turns a TIFF upright on load and drops its orientation; the sides are known only then
    scale = min(1.0, shorter_side_px / min(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # libjpeg decodes faster at 1/2, 1/4 or 1/8 of the size; twice the wanted size keeps the result sharp.
    drafted = image.draft(None, (size[0] * 2, size[1] * 2))
    image.load()
    if image.format == "JPEG" and not _has_end(content):
        raise ValueError("its end is missing")
    orientation = image.getexif().get(_ORIENTATION_TAG)
    if image.format == "JPEG" and image.mode in ("RGB", "L") and scale == 1.0 and orientation not in _UPRIGHT:
        return image, True
    shrunk = to_rgb(image)
    if scale < 1.0:
        shrunk = shrunk.resize(size, Image.Resampling.BICUBIC, box=drafted[1] if drafted else None, reducing_gap=3.0)
    return shrunk.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else shrunk, False


def _has_end(jpeg: bytes) -> bool:
    """Return whether an end marker follows the start of the first scan; Pillow accepts some JPEGs without one."""
    at = 2
    while at < len(jpeg) and jpeg[at : at + 2] != _START_OF_SCAN:
        is_segment = jpeg[at] == 0xFF and jpeg[at + 1 : at + 2] not in (b"\xff", b"\x00")
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") if is_segment else 1
    return jpeg.find(_END_OF_IMAGE, at) >= 0


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB; 16-bit values keep their high byte, transparency is composited over white."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGB", opaque.size, "white")
        white.paste(opaque, mask=opaque.getchannel("A"))
        return white
    return image.convert("RGB")
