"""Damaged images, and images that cannot be stored."""

import re

import pytest
from PIL import Image

from shards.images import ImageSpec, store_image
from tests.support.case_table import each_case
from tests.support.pictures import encoded, noise, png

SPEC = ImageSpec()
SMALL, LARGE = encoded(noise(40, 30)), encoded(noise(400, 300))


DAMAGED = {
    "jpeg without its last byte": (SMALL[:-1], "does not decode"),
    "jpeg without its end": (SMALL[:-2], "does not decode"),
    "jpeg without its last pixels": (SMALL[:-40], "does not decode"),
    "half a jpeg": (SMALL[: len(SMALL) // 2], "does not decode"),
    "jpeg cut in its header": (SMALL[:100], "does not decode|cannot be read as JPEG"),
    "jpeg of two bytes": (SMALL[:2], "cannot be read as JPEG"),
    "large jpeg without its end": (LARGE[:-2], "does not decode"),
    "half a large jpeg": (LARGE[: len(LARGE) // 2], "does not decode"),
    "progressive without its end": (encoded(noise(40, 30), progressive=True)[:-2], "does not decode"),
    "half a progressive": (encoded(noise(40, 30), progressive=True)[:-900], "does not decode"),
    "half a cmyk": (encoded(noise(40, 30, "CMYK"))[:-900], "does not decode"),
    "half a png": (encoded(noise(40, 30), "PNG")[:-900], "does not decode"),
    "half a gif": (encoded(noise(40, 30, "P"), "GIF")[:-400], "does not decode"),
    "half a webp": (encoded(noise(40, 30), "WEBP")[:-100], "does not decode|cannot be read"),
    "half a tiff": (encoded(noise(40, 30), "TIFF")[:-900], "does not decode|cannot be read"),
    "nonsense in a ppm": (b"P6\n4x 4 255\n" + bytes(48), "does not decode"),
    "jpeg of no height": (re.sub(rb"(\xff\xc0\0\x11\x08)\0\x1e", rb"\1\0\0", SMALL), "cannot be read as JPEG"),
    "png of no width": (png(0, 4, 8, 0, b"\0" * 4), "cannot be read|does not decode"),
    "text": (
        b"<!DOCTYPE html><title>404</title>",
        r"b'<!DOCTYP' and cannot be read as JPEG.*fetch it again",
    ),
    "zeros": (bytes(4096), r"begins with b'\\x00"),
    "a program for a printer": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as JPEG"),
    "jpeg in many pieces": (
        SMALL[:2] + b"\xff\xe1\0\x08Exif\0\0" * 500 + SMALL[2:],
        "more than 500 segments; save it w",
    ),
    "ppm in text": (b"P3 9 9 255\n" + b"#\n" * 9, "it is a PPM of numbers in text; save it as PNG or JPEG"),
    "avif": (bytes(4) + b"ftypavif" + bytes(90), "it is AVIF, which is not one of JPEG.*; save it as JPEG"),
    "heic": (bytes(4) + b"ftypmif1" + bytes(90), "it is HEIC, which is not one of JPEG.*; save it as JPEG"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90), "it is JPEG 2000, which is not one of JPEG"),
    "fractions": (encoded(Image.new("F", (8, 8), 0.5), "TIFF"), "floating-point numbers of an unknown range; save it"),
    "large fractions": (encoded(Image.new("F", (800, 800), 0.5), "TIFF"), "floating-point numbers of an unknown"),
    "nothing": (b"", "it is empty; fetch it again"),
    "bomb": (png(60_000, 60_000, 8, 0, b""), "more pixels than the [0-9]+ allowed; shrink it first"),
    "smaller bomb": (png(10_000, 10_000, 8, 0, b""), "more pixels than the [0-9]+ allowed; shrink it first"),
}


@each_case("name", DAMAGED)
def test_a_damaged_image_is_refused_in_one_line(name):
    content, message = DAMAGED[name]
    with pytest.raises(ValueError, match=message) as refusal:
        store_image(content, SPEC)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_cut_of_any_length_is_noticed():
    content = encoded(noise(12, 12))
    for length in range(1, len(content)):
        with pytest.raises(ValueError, match=r"does not decode|cannot be read as JPEG"):
            store_image(content[:length], SPEC)


@pytest.mark.parametrize("thumbnail", [b"", b"\xff\xda and an end of its own \xff\xd9"])
def test_a_missing_end_marker_is_noticed_at_every_size(thumbnail):
    # Pillow itself accepts about one small JPEG in twenty without it, depending on buffer boundaries.
    exif = Image.Exif()
    exif[0x010E] = thumbnail
    for side in range(4, 80):
        with pytest.raises(ValueError, match=r"does not decode \((its end is missing|image file is truncated.*)\)"):
            store_image(encoded(noise(side, side), exif=exif)[:-2], SPEC)


def test_lack_of_memory_is_no_fault_of_the_image(monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        store_image(SMALL, SPEC)


def test_a_side_longer_than_a_jpeg_has_is_refused():
    with pytest.raises(ValueError, match="side of 65501 px exceeds JPEG's 65500 px; crop it first"):
        store_image(encoded(Image.new("1", (65_501, 1)), "PNG"), SPEC)
