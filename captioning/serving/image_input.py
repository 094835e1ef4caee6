"""The image of a request: from bytes, a file below a folder, or a URL. Imports no torch."""

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
from captioning.image_limits import count_scans, opening_of, require_few_scans
from captioning.serving.safe_fetch import fetch, is_public

_PILLOW_MEGAPIXELS = 89  # Pillow warns about larger images, and refuses those of more than twice as many pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInputConfig:
    """Images that a registered model accepts: limits on size and number, and sources other than the image's bytes."""

    max_mib: int = 20
    """Largest size of an image file, in MiB."""
    max_megapixels: int = 64
    """Largest number of pixels in an image, in millions; checked in the header, before decoding."""
    max_rows: int = 128
    """Largest number of images in a request."""
    allow_paths: Path | None = None
    """Folder on the serving machine with files that requests may name by path; requests may name none if not given."""
    allow_urls: Literal["none", "public", "any"] = "none"
    """Accepted http and https URLs: none; public, only at public addresses; any, at all addresses, which gives clients
    access to the server's own network."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.max_mib < 1:
            raise ValueError(f"a limit of {self.max_mib} MiB refuses every image; use --max-mib 1 or more")
        if not 1 <= self.max_megapixels <= _PILLOW_MEGAPIXELS:
            raise ValueError(
                f"a limit of {self.max_megapixels} megapixels is out of range; "
                f"use --max-megapixels 1 to {_PILLOW_MEGAPIXELS}"
            )
        if self.max_rows < 1:
            raise ValueError(f"a limit of {self.max_rows} rows refuses every request; use --max-rows 1 or more")

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the request columns that may hold an image."""
        paths, urls = ("path",) if self.allow_paths else (), ("url",) if self.allow_urls != "none" else ()
        return ("image", *paths, *urls)


def read_image(row: Mapping[str, object], config: ImageInputConfig) -> bytes:
    """Read the image of a request's row, and check its size and its header.

    Args:
        row: value of each column, None if it is empty: base64 text or bytes in ``image``, a path below the folder in
            ``path``, a URL in ``url``.
        config: limits on images, and accepted sources.

    Returns:
        The content of the image file, which may still fail to decode.

    Raises:
        ValueError: the row has no image or several, or the image is too large or not an image.
        OSError: the file or URL cannot be read.
    """
    given = [column for column in config.columns if row.get(column) is not None]
    if len(given) != 1:
        found = f"has values in {' and '.join(given)}" if given else "is empty"
        raise ValueError(f"the row {found}; give one value, in column {' or '.join(config.columns)}")
    value, limit = row[given[0]], config.max_mib * 2**20
    if given[0] == "image":
        content = _decode_bytes(value, limit)
    elif not isinstance(value, str):
        raise ValueError(f"the {given[0]} has type {type(value).__name__}; give text")
    elif given[0] == "path" and config.allow_paths:
        content = _read_below(config.allow_paths, value, limit)
    else:
        content = fetch(value, max_bytes=limit, is_allowed=is_public if config.allow_urls == "public" else None)
    _require_few_pixels(content, config.max_megapixels)
    return content


def _decode_bytes(value: object, limit: int) -> bytes:
    if isinstance(value, str):
        # Checked before decoding, to save memory: base64 has four characters for three bytes, and up to two of padding.
        text = "".join(value.split()) if len(value) <= limit * 2 else value
        _require_small(len(text) * 3 // 4 - 2, limit)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"the image is not base64 ({error}); encode the file's bytes") from None
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"the image has type {type(value).__name__}; give base64 text or bytes")
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
        # The same error whether or not the file exists, so that it reveals nothing about the machine's other files.
        raise ValueError("the path is outside the image folder; give a path below it")
    try:
        # If the file has been replaced by a link or a pipe since, the flags make that an error instead of a hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise OSError(f"the path cannot be read ({error.strerror}); check its name") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("the path is not a file; give the path of an image")
        _require_small(status.st_size, limit)
        # One call of os.read returns 2 GiB at most, and may return less than a file system holds.
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def _require_small(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"the image is larger than the allowed {limit >> 20} MiB; shrink it first")


def _require_few_pixels(content: bytes, max_megapixels: int) -> None:
    """Check the number of pixels by the image's header, without decoding it."""
    num_scans = count_scans(content)
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            num_pixels = image.width * image.height
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        num_pixels = _PILLOW_MEGAPIXELS * 10**6 + 1
    except MemoryError:
        raise  # a fault of the machine, not of the image
    except Exception:  # Pillow's readers raise many types on damaged files: struct.error, TypeError, ...
        kinds = ", ".join(IMAGE_FORMATS)
        raise ValueError(f"the image {opening_of(content)} and is not a readable {kinds}") from None
    if num_pixels > max_megapixels * 10**6:
        raise ValueError(f"the image has more than the allowed {max_megapixels} million pixels; shrink it first")
    require_few_scans(num_scans, num_pixels)
