import io
import random

import pytest
from PIL import Image

from captioning.pages.thumbnails import thumbnail
from tests.support.case_table import each_case


def jpeg(width, height, *, is_noise=False):
    content = io.BytesIO()
    noise = random.Random(0).randbytes(width * height)
    image = Image.frombytes("L", (width, height), noise) if is_noise else Image.new("L", (width, height), 90)
    image.convert("RGB").save(content, "JPEG", quality=95)
    return content.getvalue()


def size_of(content):
    with Image.open(io.BytesIO(content)) as image:
        return image.format, image.size


def test_a_small_picture_stays_as_it_is_byte_for_byte():
    small = jpeg(96, 64)
    assert thumbnail(small, most_bytes=10_000) == small


def test_a_large_picture_is_shrunk_in_proportion():
    assert size_of(thumbnail(jpeg(1600, 800), most_bytes=90_000)) == ("JPEG", (640, 320))


@pytest.mark.parametrize("most_bytes", [90_000, 20_000, 6_000])
def test_even_noise_fits_into_the_bytes(most_bytes):
    assert len(thumbnail(jpeg(700, 700, is_noise=True), most_bytes=most_bytes)) <= most_bytes


def test_a_file_that_is_cut_off_is_refused():
    with pytest.raises(ValueError, match=r"the picture does not decode \(.*\); convert it again"):
        thumbnail(jpeg(900, 900, is_noise=True)[:5000], most_bytes=90_000)


@each_case("form", ["PNG", "GIF", "WEBP"])
def test_an_image_of_another_format_becomes_a_jpeg(form):
    content = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(content, form)
    assert size_of(thumbnail(content.getvalue(), most_bytes=90_000)) == ("JPEG", (40, 20))


def broken_png():
    """A PNG file whose second block of pixels has no name, of which Pillow raises SyntaxError while it decodes."""
    content = io.BytesIO()
    noise = random.Random(0).randbytes(3 * 300 * 300)
    Image.frombytes("RGB", (300, 300), noise).save(content, "PNG")
    png = bytearray(content.getvalue())
    second = png.index(b"IDAT", png.index(b"IDAT") + 4)
    png[second : second + 4] = b"\0\1\2\3"
    return bytes(png)


@pytest.mark.parametrize("content", [b"", b"text", b"%!PS-Adobe-3.0", pytest.param(broken_png(), id="png")])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(ValueError, match="the picture does not decode"):
        thumbnail(content, most_bytes=90_000)


def test_a_header_that_claims_billions_of_pixels_is_refused():
    content = bytearray(jpeg(40, 20))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = b"\xff" * 4
    with pytest.raises(ValueError, match=r"the picture does not decode \(Image size \(4294836225 pixels\) exceeds"):
        thumbnail(bytes(content), most_bytes=90_000)
