"""The image of a request: from bytes, from a file below a folder, or from a URL. Imports no torch."""

import base64
import binascii
import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from captioning.config import IMAGE_FORMATS
from captioning.serving.safe_fetch import fetch, is_public

BEAM_SIZES, CAPTION_LENGTHS = range(1, 21), range(1, 101)
"""The beam sizes, and the largest numbers of words in a caption, that a request may ask for."""
_PILLOW_MEGAPIXELS = 89  # Pillow itself warns about larger images, and refuses still larger ones


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInputConfig:
    """The images that a registered model accepts: sizes, and sources other than the image's bytes."""

    max_mib: int = 20
    """Largest size of an image file, in MiB."""
    max_megapixels: int = 64
    """Largest number of pixels in an image, in millions, as its header says before it is decoded."""
    allow_paths: Path | None = None
    """Accept paths of files below this folder of the serving machine."""
    allow_urls: Literal["none", "public", "any"] = "none"
    """Accept http and https URLs: public, at public addresses alone; any, at all addresses, by which clients reach the
    server's own network."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.max_mib < 1:
            raise ValueError(f"no image has {self.max_mib} MiB; use a --max-mib of at least 1")
        if not 1 <= self.max_megapixels <= _PILLOW_MEGAPIXELS:
            raise ValueError(
                f"{self.max_megapixels} megapixels cannot be the limit; use --max-megapixels 1 to {_PILLOW_MEGAPIXELS}"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of a request's columns that may hold an image."""
        paths, urls = ("path",) if self.allow_paths else (), ("url",) if self.allow_urls != "none" else ()
        return ("image", *paths, *urls)


def read_image(row: Mapping[str, object], config: ImageInputConfig) -> bytes:
    """Read the image file of a request's row, and check its size and its header.

    Args:
        row: value of each column, None if it is empty: base64 text or bytes in ``image``, a path below the folder in
            ``path``, a URL in ``url``.
        config: the images that the model accepts.

    Returns:
        The bytes of the file, which may still fail to decode.

    Raises:
        ValueError: the row holds no image, or more than one, or the image is too large or not an image.
        OSError: the file or URL cannot be read.
    """
    given = [column for column in config.columns if row.get(column) is not None]
    if len(given) != 1:
        found = f"holds {' and '.join(given)}" if given else "is empty"
        raise ValueError(f"the row {found}; give one of {', '.join(config.columns)}")
    value, limit = row[given[0]], config.max_mib * 2**20
    if given[0] == "image":
        content = _decode_bytes(value, limit)
    elif not isinstance(value, str):
        raise ValueError(f"the {given[0]} is a {type(value).__name__}; give text")
    elif given[0] == "path" and config.allow_paths:
        content = _read_below(config.allow_paths, value, limit)
    else:
        content = fetch(value, max_bytes=limit, is_allowed=is_public if config.allow_urls == "public" else None)
    _require_few_pixels(content, config.max_megapixels)
    return content


def _decode_bytes(value: object, limit: int) -> bytes:
    if isinstance(value, str):
        # The size is checked before decoding; base64 has four characters for three bytes.
        text = "".join(value.split()) if len(value) <= limit * 2 else value
        _require_small(len(text) * 3 // 4 - 2, limit)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"the image is not base64 ({error}); encode the file's bytes") from None
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"the image is a {type(value).__name__}; give base64 text or bytes")
    _require_small(len(value), limit)
    return bytes(value)


def _read_below(folder: Path, name: str, limit: int) -> bytes:
    """Read a regular file below a folder, after resolving links."""
    top = folder.resolve()
    try:
        path = (top / name).resolve()
    except (OSError, RuntimeError, ValueError):  # circular links, a name that is too long, a null byte
        path = top.parent
    if not path.is_relative_to(top):
        # The same answer whether or not the file exists, so that it tells nothing about the machine's other files.
        raise ValueError("the path leads out of the folder for images; give one below it")
    try:
        # The flags turn a file that was replaced by a link or a pipe in the meantime into an error instead of a hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise OSError(f"the path cannot be read ({error.strerror}); check its name") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("the path is not a file; give the path of an image")
        _require_small(status.st_size, limit)
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def _require_small(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"the image has more than the {limit >> 20} MiB allowed; shrink it first")


def _require_few_pixels(content: bytes, max_megapixels: int) -> None:
    """Check the number of pixels by the image's header, without decoding it."""
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            num_pixels = image.width * image.height
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        num_pixels = _PILLOW_MEGAPIXELS * 10**6 + 1
    except MemoryError:
        raise  # of the machine, not the image
    except Exception:  # damage makes Pillow's readers stumble in many ways: struct.error, TypeError, ...
        kinds = ", ".join(IMAGE_FORMATS)
        raise ValueError(f"the image begins with {content[:8]!r} and is no readable {kinds}") from None
    if num_pixels > max_megapixels * 10**6:
        raise ValueError(f"the image has more than the {max_megapixels} megapixels allowed; shrink it first")
