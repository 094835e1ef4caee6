"""Limits on an image file that are checked before Pillow reads it: a small file can keep a core busy for minutes."""

import re

# A scan refines the whole image, so a small file with many takes minutes to decode. Encoders write up to about ten.
_MAX_SCANS, _MAX_SCAN_PIXELS = 100, 900_000_000
# Pillow copies all metadata so far at each segment of it. Cameras write some ten, or some hundred of 64 KiB each.
_MAX_SEGMENTS = 500
_TEXT_PPM = (b"P1", b"P2", b"P3")
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # others continue a scan
# The entry of a TIFF's directory that says that its pixels are JPEGs, in either order of bytes.
_TIFF = (b"II*\0", b"MM\0*")
_JPEGS_IN_TIFF = re.compile(rb"\x03\x01\x03\0\x01\0\0\0[\x06\x07]\0|\x01\x03\0\x03\0\0\0\x01\0[\x06\x07]")
_PNG_SIGNATURE, _PNG_TEXT = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class UnsuitableError(ValueError):
    """An image that is not stored although it may decode; the message says what to do."""


def read_markers(content: bytes) -> tuple[int, bool]:
    """Return the number of scans of a JPEG or of those in a TIFF, and whether it ends in a marker, as not all do.

    Raises:
        UnsuitableError: the file would take long even to open, or is a PPM of numbers in text, which Pillow reads
            slowly.
    """
    if content.startswith(_TEXT_PPM):
        raise UnsuitableError("it is a PPM of numbers in text; save it as PNG or JPEG")
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
            raise UnsuitableError(f"it has more than {_MAX_SEGMENTS} segments; save it without metadata")
        if marker not in (_START_OF_IMAGE, b"\xff\x01"):  # which have no length
            at += max(2, int.from_bytes(content[at : at + 2], "big"))  # a wrong length must not end this count
    return num_scans, False


def _scans_in_tiff(content: bytes) -> int:
    """Return the largest number of scans of a JPEG in a TIFF, each of which holds a strip or a tile of the image."""
    if not _JPEGS_IN_TIFF.search(content):
        return 0
    return max(jpeg.count(_START_OF_SCAN) for jpeg in content.split(_START_OF_IMAGE))


def require_few_scans(num_scans: int, num_pixels: int) -> None:
    """Check that an image does not take too long to decode.

    Raises:
        UnsuitableError: there are more scans than any encoder writes, or too many for so many pixels.
    """
    if num_scans > min(_MAX_SCANS, _MAX_SCAN_PIXELS // num_pixels):
        what = f"its {num_scans} scans of {num_pixels} pixels"
        raise UnsuitableError(f"{what} take too long to decode; save it as a baseline JPEG")


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
