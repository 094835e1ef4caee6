"""Limits on an image file that are checked before Pillow reads it: a small file can keep a core busy for minutes.

Imports nothing but the standard library.
"""

import re
from typing import NamedTuple

# A scan refines the whole image. Encoders write about ten.
_MAX_SCANS, _MAX_SCAN_PIXELS = 100, 900_000_000
# Pillow copies all metadata so far at each segment of it. Cameras write some ten, or some hundred of 64 KiB each.
_MAX_SEGMENTS = 500
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # others continue a scan
_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
# The entry of a TIFF's directory that says that its pixels are JPEGs, in either order of bytes.
_TIFF = (b"II*\0", b"MM\0*")
_JPEGS_IN_TIFF = re.compile(rb"\x03\x01\x03\0\x01\0\0\0[\x06\x07]\0|\x01\x03\0\x03\0\0\0\x01\0[\x06\x07]")
_MARKERS_WITHOUT_LENGTH = (_START_OF_IMAGE, b"\xff\x01")
_BASELINE, _SCAN, _EXIF = 0xC0, 0xDA, b"Exif\0\0"
_RESOLUTIONS = (b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")  # of three colours: 4:4:4, 4:2:2 and 4:2:0
_METADATA = frozenset([b"\xff\xfe", *(bytes((0xFF, number)) for number in range(0xE0, 0xF0))])
_COLOUR_SPACES = (b"JFIF\0", b"Adobe")  # metadata that say how colours are stored
_PNG_SIGNATURE, _PNG_TEXT = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_TEXT_PPM = (b"P1", b"P2", b"P3")


def opening_of(content: bytes) -> str:
    """Return how a file begins, as the verb and object of a sentence about a file that cannot be read as an image."""
    return f"begins with {content[:8]!r}" if content else "is empty"


def count_scans(content: bytes) -> int:
    """Return the number of scans of a JPEG, or of the JPEGs in a TIFF; 0 for other formats.

    Args:
        content: content of an image file, which may be damaged.

    Raises:
        ValueError: the file would take long even to open, or is a PPM of numbers in text, which Pillow reads slowly.
    """
    if content.startswith(_TEXT_PPM):
        raise ValueError("it is a PPM of numbers in text; save it as PNG or JPEG")
    if content.startswith(_TIFF):
        return _scans_in_tiff(content)
    if not content.startswith(_START_OF_IMAGE):
        return 0
    num_scans, num_segments, at = 0, 0, 2
    while (found := _MARKER.search(content, at)) and found[0] != _END_OF_IMAGE:
        marker, at = found[0], found.end()
        num_scans, num_segments = num_scans + (marker == _START_OF_SCAN), num_segments + 1
        if num_segments > _MAX_SEGMENTS:
            raise ValueError(f"it has more than {_MAX_SEGMENTS} segments; save it as a baseline JPEG without metadata")
        if marker not in _MARKERS_WITHOUT_LENGTH:
            at += max(2, int.from_bytes(content[at : at + 2], "big"))  # a wrong length must not end this count
    return num_scans


def _scans_in_tiff(content: bytes) -> int:
    """Return the largest number of scans of a JPEG in a TIFF, each of which holds a strip or a tile of the image."""
    if not _JPEGS_IN_TIFF.search(content):
        return 0
    return max(jpeg.count(_START_OF_SCAN) for jpeg in content.split(_START_OF_IMAGE))


class JpegHead(NamedTuple):
    """What the segments before a JPEG's image say.

    Attributes:
        has_one_scan: whether the image has one scan; libjpeg refuses a second one. Others must be counted.
        has_exif: whether there is Exif, which may turn the image.
        size: width and height of a baseline image, grey or of three colours at a usual resolution; None for others,
            whose header libjpeg-turbo must read.
    """

    has_one_scan: bool
    has_exif: bool
    size: tuple[int, int] | None = None


def read_head(content: bytes) -> JpegHead:
    """Read the segments before a JPEG's image, which takes a fraction of the time of ``count_scans``."""
    num_components, size, is_baseline, has_exif, at = 0, None, False, False, 2
    while content[at : at + 1] == b"\xff" and at + 4 <= len(content):  # each has a marker and a length of two bytes
        marker, start = content[at + 1], at + 4
        if marker == _SCAN:
            has_one_scan = is_baseline and content[start : start + 1] == bytes((num_components,))
            return JpegHead(has_one_scan, has_exif, size)
        if not (0 < marker < 0xD0 or 0xD8 <= marker < 0xFF):
            break
        if marker == _BASELINE:
            num_components, is_baseline = int.from_bytes(content[start + 5 : start + 6], "big"), True
            size = _usual_size(content[start : start + 15])
        elif content.startswith(_EXIF, start):
            has_exif = True
        at += 2 + max(2, content[at + 2] << 8 | content[at + 3])
    return JpegHead(False, _EXIF in content)  # with stray bytes between segments


def _usual_size(frame: bytes) -> tuple[int, int] | None:
    """Return the size that the segment of a frame says, if 8 bits, colours and their resolutions are usual ones."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    is_usual = frame[5:6] == b"\1" or (frame[5:6] == b"\3" and frame[7::3] in _RESOLUTIONS)
    return (width, height) if is_usual and frame[:1] == b"\x08" and width and height else None


def without_metadata(content: bytes) -> bytes:
    """Return a JPEG without what stands before its image and does not change it: Exif, profiles, comments, stray bytes.

    Args:
        content: content of a JPEG file, which may be damaged.
    """
    parts, at = [_START_OF_IMAGE], 2
    while (found := _MARKER.search(content, at)) and found[0] not in (_START_OF_SCAN, _END_OF_IMAGE):
        start, at = found.span()
        if found[0] not in _MARKERS_WITHOUT_LENGTH:
            at += max(2, int.from_bytes(content[at : at + 2], "big"))
            if found[0] not in _METADATA or content[start + 4 : start + 9] in _COLOUR_SPACES:
                parts.append(content[start:at])
    return b"".join((*parts, content[found.start() :] if found else b""))


def require_few_scans(num_scans: int, num_pixels: int) -> None:
    """Check that an image does not take too long to decode.

    Args:
        num_scans: number of scans, of a JPEG.
        num_pixels: number of pixels in the image.

    Raises:
        ValueError: there are more scans than any encoder writes, or too many for so many pixels.
    """
    if num_scans > min(_MAX_SCANS, _MAX_SCAN_PIXELS // max(1, num_pixels)):
        raise ValueError(f"its {num_scans} scans of {num_pixels} pixels take too long; save it as a baseline JPEG")


def without_text(content: bytes) -> bytes:
    """Return a PNG without its texts and colour profile, of which Pillow refuses large and damaged ones.

    Args:
        content: content of an image file, which may be damaged; formats other than PNG are returned as they are.
    """
    if not content.startswith(_PNG_SIGNATURE):
        return content
    parts, at = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")  # length, kind and checksum have four bytes each
        if content[at + 4 : at + 8] not in _PNG_TEXT:
            parts.append(content[at:end])
        at = end
    return b"".join(parts)
