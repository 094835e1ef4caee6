"""Images as shards store them: decoded once as a check, shrunk if large, kept byte for byte if they fit."""

import io
import math
import re
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
# A scan refines the whole image, so a small file with many takes minutes to decode. Encoders write up to about ten.
_MAX_SCANS, _MAX_SCAN_PIXELS = 100, 900_000_000
# Pillow copies all metadata so far at each segment of it. Cameras write some ten, or some hundred of 64 KiB each.
_MAX_SEGMENTS = 500
_TEXT_PPM = (b"P1", b"P2", b"P3")
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # others continue a scan
# The entry of a TIFF's directory that says that its pixels are JPEGs, in either order of bytes.
_TIFF = (b"II*\0", b"MM\0*")
_JPEGS_IN_TIFF = re.compile(rb"\x03\x01\x03\0\x01\0\0\0[\x06\x07]\0|\x01\x03\0\x03\0\0\0\x01\0[\x06\x07]")
_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_STRIP_PIXELS = 2**20
_REDUCING_GAP = 3.0
# Other formats of photographs, by what follows the first four bytes.
_OTHER_FORMATS = {
    "AVIF": (b"ftypavif", b"ftypavis"),
    "HEIC": (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"),
    "JPEG 2000": (b"jP  ",),
}


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
        ValueError: the content is empty, truncated, not an image, far too large, or a JPEG of too many scans.
    """
    if not content:
        raise ValueError("it is empty; fetch it again")
    image, fits = _decode(content, spec.shorter_side_px)
    if fits:
        return StoredImage(content, *image.size)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=spec.quality, subsampling="4:2:0", comment=b"")
    return StoredImage(buffer.getvalue(), *image.size)


class _UnsuitableError(ValueError):
    """An image that is not stored although it may decode; the message says what to do."""


def _decode(content: bytes, shorter_side_px: int) -> tuple[Image.Image, bool]:
    """Return the image at the size to store, and whether its content can be stored unchanged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which is not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            num_scans, has_end = _read_markers(content)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if num_scans > min(_MAX_SCANS, _MAX_SCAN_PIXELS // (image.width * image.height)):
                    what = f"its {num_scans} scans of {image.width * image.height} pixels"
                    raise _UnsuitableError(f"{what} take too long to decode; save it as a baseline JPEG")
                return _shrink(image, shorter_side_px, has_end=has_end)
    except Image.UnidentifiedImageError:
        raise ValueError(_unreadable(content)) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"it has more pixels than the {Image.MAX_IMAGE_PIXELS} allowed; shrink it first") from None
    except (MemoryError, _UnsuitableError):
        raise  # lack of memory is a fault of this machine, which must not decide what a shard contains
    except Exception as error:  # Pillow raises many types for damaged files: struct.error, KeyError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        if "MAX_TEXT" in reason:  # Pillow's limits on compressed metadata
            raise ValueError("its text or colour profile is too large; save it without") from None
        raise ValueError(f"it does not decode ({reason}); fetch it again") from error


def _unreadable(content: bytes) -> str:
    kinds = ", ".join(_FORMATS)
    for name, signatures in _OTHER_FORMATS.items():
        if content.startswith(signatures, 4):
            return f"it is {name}, which is not one of {kinds}; save it as JPEG"
    return f"it begins with {content[:8]!r} and cannot be read as {kinds}; fetch it again, or save it as JPEG"


def _shrink(image: Image.Image, shorter_side_px: int, *, has_end: bool) -> tuple[Image.Image, bool]:
    if image.format == "TIFF":
        image.load()  # Pillow turns a TIFF upright on load and drops its orientation; the sides are known only then
    scale = min(1.0, shorter_side_px / min(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if max(size) > _LONGEST_SIDE_PX:
        raise _UnsuitableError(f"its side of {max(size)} px exceeds JPEG's {_LONGEST_SIDE_PX} px; crop it first")
    # libjpeg decodes faster at 1/2, 1/4 or 1/8 of the size; twice the wanted size keeps the result sharp.
    drafted = image.draft(None, (size[0] * 2, size[1] * 2))
    image.load()
    if image.format == "JPEG" and not has_end:
        raise ValueError("its end is missing")
    orientation = image.getexif().get(_ORIENTATION_TAG)
    if image.format == "JPEG" and image.mode in ("RGB", "L") and scale == 1.0 and orientation not in _UPRIGHT:
        return image, True
    if scale == 1.0:
        shrunk = to_rgb(image)
    elif drafted or image.width * image.height <= _STRIP_PIXELS:
        box = drafted[1] if drafted else None
        shrunk = to_rgb(image).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=_REDUCING_GAP)
    else:
        shrunk = _shrink_in_strips(image, size)
    return shrunk.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else shrunk, False


def _shrink_in_strips(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the same pixels as ``to_rgb(image).resize(size, BICUBIC, reducing_gap=_REDUCING_GAP)``.

    The colours of some rows are converted at a time. Converting the whole image takes several times its memory, which
    is 0.3 GiB for the largest that is allowed.
    """
    across, down = (max(1, int(long / short / _REDUCING_GAP)) for long, short in zip(image.size, size, strict=True))
    narrow = Image.new("RGB", (size[0], math.ceil(image.height / down)))
    num_rows = max(1, _STRIP_PIXELS // image.width // down) * down
    for top in range(0, image.height, num_rows):
        strip = image.crop((0, top, image.width, min(top + num_rows, image.height)))
        reduced = to_rgb(strip).reduce((across, down))
        box = (0, 0, image.width / across, reduced.height)
        narrow.paste(reduced.resize((size[0], reduced.height), Image.Resampling.BICUBIC, box=box), (0, top // down))
    return narrow.resize(size, Image.Resampling.BICUBIC, box=(0, 0, size[0], image.height / down))


def _read_markers(content: bytes) -> tuple[int, bool]:
    """Return the number of scans of a JPEG or of those in a TIFF, and whether it ends in a marker, as not all do.

    Raises:
        _UnsuitableError: the file would take long even to open, or is a PPM of numbers in text, which Pillow reads
            slowly.
    """
    if content.startswith(_TEXT_PPM):
        raise _UnsuitableError("it is a PPM of numbers in text; save it as PNG or JPEG")
    if content.startswith(_TIFF):
        return _scans_in_tiff(content), False
    if not content.startswith(_START_OF_IMAGE):
        return 0, False
    num_scans, num_segments, at = 0, 0, 2
    while found := _MARKER.search(content, at):
        marker, at = found[0], found.end()
        if marker == _END_OF_IMAGE:
            return num_scans, True
        num_scans, num_segments = num_scans + (marker == _START_OF_SCAN), num_segments + 1
        if num_segments > _MAX_SEGMENTS:
            raise _UnsuitableError(f"it has more than {_MAX_SEGMENTS} segments; save it without metadata")
        if marker not in (_START_OF_IMAGE, b"\xff\x01"):  # which have no length
            at += max(2, int.from_bytes(content[at : at + 2], "big"))  # a wrong length must not end this count
    return num_scans, False


def _scans_in_tiff(content: bytes) -> int:
    """Return the largest number of scans of a JPEG in a TIFF, each of which holds a strip or a tile of the image."""
    if not _JPEGS_IN_TIFF.search(content):
        return 0
    return max(jpeg.count(_START_OF_SCAN) for jpeg in content.split(_START_OF_IMAGE))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB; 16-bit values keep their high byte, transparency is composited over white.

    Raises:
        ValueError: the pixels are floating-point numbers, whose range is not known.
    """
    if image.mode == "F":
        raise _UnsuitableError(
            "its pixels are floating-point numbers of an unknown range; save it with 8 bits per colour"
        )
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGB", opaque.size, "white")
        white.paste(opaque, mask=opaque.getchannel("A"))
        return white
    return image.convert("RGB")
