"""JPEGs: decoding at a fraction of the size, resizing, and encoding."""

import numpy as np
from PIL import Image

from captioning.data import jpeg
from captioning.data.jpeg import decode_jpeg, encode_jpeg, read_header, resize_pixels
from captioning.image_limits import JpegHead
from tests.support.case_table import each_case
from tests.support.pictures import decoded, encoded, noise, picture

CONTENT = encoded(picture(640, 480))


@each_case(
    ("at_least", "size"),
    [((1, 1), (80, 60)), ((160, 120), (160, 120)), ((161, 120), (320, 240)), ((320, 241), (640, 480))],
)
def test_an_image_is_decoded_at_the_smallest_fraction_that_is_enough(at_least, size):
    pixels = decode_jpeg(CONTENT, at_least=at_least)
    assert pixels is not None
    assert (pixels.shape, pixels.dtype) == ((*size[::-1], 3), np.uint8)


@each_case("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": "4:1:1"}])
@each_case("mode", ["RGB", "L"])
def test_pixels_are_those_of_pillow(mode, options):
    content = encoded(noise(75, 50, mode), **options)
    assert np.array_equal(decode_jpeg(content, at_least=(75, 50)), np.asarray(decoded(content).convert("RGB")))


@each_case("options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}])
@each_case("mode", ["RGB", "L"])
def test_a_header_says_what_that_of_the_library_says(mode, options):
    content = encoded(picture(75, 50, mode), **options)
    assert read_header(content) == read_header(content, JpegHead(False, False)) == (75, 50, False)


@each_case("content", [encoded(picture(9, 9), "PNG"), encoded(picture(9, 9, "CMYK")), b"\xff\xd8", b""])
def test_other_files_are_left_to_pillow(content):
    assert decode_jpeg(content, at_least=(9, 9)) is None


def test_all_files_are_left_to_pillow_where_the_library_is_missing(monkeypatch):
    monkeypatch.setattr(jpeg, "_IS_INSTALLED", False)
    assert (read_header(CONTENT), decode_jpeg(CONTENT, at_least=(1, 1))) == (None, None)


@each_case("size", [(40, 30), (64, 48), (90, 70)])
def test_resizing_is_that_of_pillow(size):
    pixels = np.asarray(noise(64, 48)).copy()
    expected = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), int)
    # Outside 0 to 255, Pillow clips between its two passes and torch at the end, or the reverse.
    assert np.abs(resize_pixels(pixels, *size) - expected).mean() < 0.5


def test_a_part_of_an_image_has_the_size_that_was_asked_for():
    images = [np.zeros((length, length, 3), np.uint8) for length in range(33, 130)]
    shapes = {resize_pixels(one, 16, 15, extent=(len(one), len(one) - 7 / 8)).shape for one in images}
    assert shapes == {(15, 16, 3)}


def test_an_encoded_image_is_decoded_again():
    pixels = np.asarray(picture(64, 48))
    found = decode_jpeg(encode_jpeg(pixels, 95), at_least=(64, 48))
    assert found is not None
    assert np.abs(found.astype(int) - pixels).mean() < 3
