"""Images as shards store them: decoded once as a check, shrunk if large, kept byte for byte if they fit."""

import io
import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from shards.imaging.codec import JpegCodec
from shards.imaging.limits import UnsuitableError, read_markers, require_few_scans, without_text

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


def store_image(content: bytes, spec: ImageSpec, codec: JpegCodec | None = None) -> StoredImage:
    """Convert the content of an image file to the JPEG that a shard stores.

    Args:
        content: bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM file; CMYK, greyscale, 16-bit, transparent and
            EXIF-rotated images become upright RGB, and of an animation the first frame is taken.
        spec: size and quality of the result.
        codec: codec of JPEG images, which notices damage; without one, Pillow does all.

    Raises:
        ValueError: the content is empty, damaged, not an image, far too large, or a JPEG of too many scans.
    """
    if not content:
        raise ValueError("it is empty; fetch it again")
    image, fits = _decode(content, spec.shorter_side_px, codec)
    if fits:
        return StoredImage(content, *image.size)
    if codec:
        return StoredImage(codec.encode(np.asarray(image), spec.quality), *image.size)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=spec.quality, subsampling="4:2:0", comment=b"")
    return StoredImage(buffer.getvalue(), *image.size)


def _decode(content: bytes, shorter_side_px: int, codec: JpegCodec | None) -> tuple[Image.Image, bool]:
    """Return the image at the size to store, and whether its content can be stored unchanged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which is not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            num_scans, has_end = read_markers(content)
            with Image.open(io.BytesIO(without_text(content)), formats=_FORMATS) as image:
                require_few_scans(num_scans, image.width * image.height)
                if codec and image.format == "JPEG" and (found := _shrink_jpeg(image, content, shorter_side_px, codec)):
                    return found
                return _shrink(image, shorter_side_px, has_end=has_end)
    except Image.UnidentifiedImageError:
        raise ValueError(_unreadable(content)) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"it has more pixels than the {Image.MAX_IMAGE_PIXELS} allowed; shrink it first") from None
    except (MemoryError, UnsuitableError):
        raise  # lack of memory is a fault of this machine, which must not decide what a shard contains
    except Exception as error:  # Pillow raises many types for damaged files: struct.error, KeyError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it does not decode ({reason}); fetch it again") from error


def _unreadable(content: bytes) -> str:
    kinds = ", ".join(_FORMATS)
    for name, signatures in _OTHER_FORMATS.items():
        if content.startswith(signatures, 4):
            return f"it is {name}, which is not one of {kinds}; save it as JPEG"
    return f"it begins with {content[:8]!r} and cannot be read as {kinds}; fetch it again, or save it as JPEG"


def _shrink_jpeg(
    image: Image.Image, content: bytes, shorter_side_px: int, codec: JpegCodec
) -> tuple[Image.Image, bool] | None:
    """Do as ``_shrink`` by a codec of JPEG; return None if it leaves the image to Pillow."""
    (width, height), scale = _stored_size(image, shorter_side_px)
    pixels = codec.decode(content, at_least=(width * 2, height * 2))
    if pixels is None:
        return None
    orientation = _orientation(image)
    if scale == 1.0:
        return (image if orientation is None else _turn(Image.fromarray(pixels), orientation)), orientation is None
    fraction = 2 ** round(math.log2(image.width / pixels.shape[1]))
    shrunk = codec.resize(pixels, width, height, extent=(image.width / fraction, image.height / fraction))
    return _turn(Image.fromarray(shrunk), orientation), False


def _stored_size(image: Image.Image, shorter_side_px: int) -> tuple[tuple[int, int], float]:
    scale = min(1.0, shorter_side_px / min(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if max(size) > _LONGEST_SIDE_PX:
        raise UnsuitableError(f"its side of {max(size)} px exceeds JPEG's {_LONGEST_SIDE_PX} px; crop it first")
    return size, scale


def _orientation(image: Image.Image) -> int | None:
    """Return the orientation of an image that lies; None for an upright one, also if its Exif is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except MemoryError:
        raise
    except Exception:  # Pillow raises many types for damaged Exif: struct.error, TypeError, ...
        return None
    return orientation if orientation in _UPRIGHT else None


def _turn(image: Image.Image, orientation: int | None) -> Image.Image:
    return image if orientation is None else image.transpose(_UPRIGHT[orientation])


def _shrink(image: Image.Image, shorter_side_px: int, *, has_end: bool) -> tuple[Image.Image, bool]:
    if image.format == "TIFF":
        image.load()  # Pillow turns a TIFF upright on load and drops its orientation; the sides are known only then
    size, scale = _stored_size(image, shorter_side_px)
    # libjpeg decodes faster at 1/2, 1/4 or 1/8 of the size; twice the wanted size keeps the result sharp.
    drafted = image.draft(None, (size[0] * 2, size[1] * 2))
    image.load()
    if image.format == "JPEG" and not has_end:
        raise ValueError("its end is missing")
    orientation = _orientation(image)
    if image.format == "JPEG" and image.mode in ("RGB", "L") and scale == 1.0 and orientation is None:
        return image, True
    if scale == 1.0:
        shrunk = to_rgb(image)
    elif drafted or image.width * image.height <= _STRIP_PIXELS:
        box = drafted[1] if drafted else None
        shrunk = to_rgb(image).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=_REDUCING_GAP)
    else:
        shrunk = _shrink_in_strips(image, size)
    return _turn(shrunk, orientation), False


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


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB; 16-bit values keep their high byte, transparency is composited over white.

    Raises:
        ValueError: the pixels are floating-point numbers, whose range is not known.
    """
    if image.mode == "F":
        raise UnsuitableError(
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
