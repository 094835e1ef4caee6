"""Thumbnails: JPEG files made small enough that a page of many pictures stays small."""

import io

from PIL import Image

from captioning.config import IMAGE_FORMATS

# (longest side in pixels, JPEG quality), largest first; the last one is taken even if it is not small enough.
_SIZES = ((640, 82), (512, 80), (384, 76), (320, 70), (256, 62), (192, 55), (128, 45))
_BYTES_PER_SQUARE_PIXEL = 0.1  # of the longest side; photographs take more, so larger sizes are not tried


def thumbnail(jpeg: bytes, *, most_bytes: int) -> bytes:
    """Return a JPEG image as it is if it is small, otherwise a smaller copy of it; any other image as JPEG.

    Args:
        jpeg: content of a JPEG file, or of one in another format.
        most_bytes: largest size of the result, in bytes.

    Raises:
        ValueError: the image does not decode.
    """
    sizes = [size for size in _SIZES if size[0] ** 2 * _BYTES_PER_SQUARE_PIXEL <= most_bytes] or [_SIZES[-1]]
    largest = sizes[0][0]
    try:
        with Image.open(io.BytesIO(jpeg), formats=IMAGE_FORMATS) as image:
            if image.format == "JPEG" and len(jpeg) <= most_bytes and max(image.size) <= _SIZES[0][0]:
                return jpeg
            image.draft("RGB", (largest, largest))
            full = image.convert("RGB")
    except MemoryError:
        raise  # a fault of the machine, not of the image
    except Exception as error:  # Pillow's readers raise many types on damaged files: SyntaxError, struct.error, ...
        raise ValueError(f"the picture does not decode ({error}); convert it again") from error
    content = b""
    for size_px, quality in sizes:
        full.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)  # never enlarges
        content = _encode(full, quality)
        if len(content) <= most_bytes:
            break
    return content


def _encode(image: Image.Image, quality: int) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()
