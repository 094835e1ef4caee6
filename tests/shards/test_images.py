"""Images of every common format, mode and size."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards import images
from shards.images import ImageSpec, store_image
from tests.support.case_table import each_case
from tests.support.pictures import QUARTERS, decoded, encoded, noise, picture, png, quarters

SPEC = ImageSpec()
SMALL_SPEC = ImageSpec(shorter_side_px=48)
SIZES = [(60, 40), (150, 100), (300, 200)]  # fits, shrinks, is decoded at half of its size first
ORIENTATION_TAG = 0x0112
# How a camera held in each orientation stores an upright picture.
STORED_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(image, orientation, form="JPEG", **options):
    """Encode a picture as a camera that records its orientation does."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored = image.transpose(STORED_BY_ORIENTATION[orientation]) if orientation in STORED_BY_ORIENTATION else image
    return encoded(stored, form, exif=exif, **options)


def sixteen_bit_row(*values):
    return b"\0" + struct.pack(f">{len(values)}H", *values)


def assert_close(pixels, expected, tolerance=8):
    np.testing.assert_allclose(np.array(pixels, int), np.array(expected, int), atol=tolerance)


def stored_picture(content, spec=SPEC):
    """Store an image; check that it is an RGB JPEG of the reported size."""
    stored = store_image(content, spec)
    image = decoded(stored.jpeg)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (stored.width, stored.height))
    return image


@each_case(
    ("size", "stored_size"),
    [
        ((640, 480), (341, 256)),
        ((480, 640), (256, 341)),
        ((1400, 1100), (326, 256)),  # libjpeg decodes it at half of its size
        ((300, 256), (300, 256)),  # fits
        ((257, 257), (256, 256)),
        ((255, 900), (255, 900)),  # the longer side alone shrinks nothing
        ((1, 1), (1, 1)),  # nothing is enlarged
        ((2000, 1), (2000, 1)),
    ],
)
@each_case("form", ["JPEG", "PNG"])
def test_the_shorter_side_shrinks_and_the_aspect_stays(size, stored_size, form):
    stored = store_image(encoded(picture(*size), form), SPEC)
    assert (stored.width, stored.height) == decoded(stored.jpeg).size == stored_size


@settings(max_examples=40, deadline=None, derandomize=True)
@given(width=st.integers(1, 90), height=st.integers(1, 90), side=st.integers(1, 60))
def test_sizes_are_right_for_every_shape(width, height, side):
    stored = store_image(encoded(Image.new("L", (width, height)), "BMP"), ImageSpec(shorter_side_px=side))
    assert min(stored.width, stored.height) == min(width, height, side)
    scale = min(stored.width, stored.height) / min(width, height)
    assert abs(max(stored.width, stored.height) - max(width, height) * scale) <= 0.5


@each_case("size", SIZES)
def test_shrinking_keeps_every_part_in_its_place(size):
    assert_close(quarters(stored_picture(encoded(picture(*size), quality=95), SMALL_SPEC)), QUARTERS)


def test_shrinking_shifts_nothing():
    # 1,031 px decode to 516 px at half size, of which the last is half empty.
    edge = Image.new("RGB", (1031, 1031), "white")
    edge.paste("black", (0, 0, 515, 1031))
    row = np.asarray(stored_picture(encoded(edge, quality=95)).convert("L"))[128].astype(float)
    assert (255 - row).sum() / 255 == pytest.approx(256 * 515 / 1031, abs=0.1)


@each_case("mode", ["RGB", "L"])
@each_case("progressive", [False, True])
def test_a_fitting_jpeg_is_stored_byte_for_byte(mode, progressive):
    content = encoded(picture(90, 60, mode), progressive=progressive)
    assert store_image(content, SPEC) == (content, 90, 60)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm():
    content = encoded(picture(90, 60)) + b"and what a camera adds"
    assert store_image(content, SPEC).jpeg == content


def test_a_jpeg_that_says_it_is_upright_is_stored_byte_for_byte():
    content = turned(picture(90, 60), 1)
    assert store_image(content, SPEC).jpeg == content


def test_the_same_picture_gives_the_same_bytes():
    content = encoded(noise(300, 280), "PNG")
    assert store_image(content, SPEC) == store_image(content, SPEC)


def test_quality_decides_about_the_size():
    content = encoded(noise(300, 300), "PNG")
    low, high = (store_image(content, ImageSpec(quality=quality)).jpeg for quality in (30, 95))
    assert len(low) < len(high) / 2


def test_a_comment_is_not_carried_into_another_jpeg():
    assert b"shot by" not in store_image(encoded(picture(600, 600), comment=b"shot by"), SPEC).jpeg


@each_case("orientation", range(1, 9))
@each_case("size", SIZES)
def test_a_turned_jpeg_is_stored_upright(orientation, size):
    image = stored_picture(turned(picture(*size), orientation, quality=95), SMALL_SPEC)
    assert (image.width > image.height, image.getexif().get(ORIENTATION_TAG, 1)) == (True, 1)
    assert_close(quarters(image), QUARTERS)


@each_case("orientation", [3, 5, 6])
@each_case("form", ["TIFF", "PNG", "WEBP"])
@each_case("size", SIZES[:2])
def test_other_formats_are_stored_upright_too(orientation, form, size):
    image = stored_picture(turned(picture(*size), orientation, form), SMALL_SPEC)
    assert image.width > image.height
    assert_close(quarters(image), QUARTERS, tolerance=12)  # WebP is lossy


@each_case("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    content = turned(picture(90, 60), orientation)
    assert store_image(content, SPEC).jpeg == content


@each_case(("at", "damage"), [(6, b"\xff" * 8), (14, b"\x09\x09"), (10, b"\x00\x00\x09\x09")])
def test_damaged_exif_hides_no_picture(at, damage):
    content = bytearray(turned(picture(90, 60), 6))
    at += content.index(b"Exif")  # the TIFF header, the number of tags, the place of the tags
    content[at : at + len(damage)] = damage
    assert sorted(store_image(bytes(content), SPEC)[1:]) == [60, 90]


@each_case("size", SIZES)
@each_case("progressive", [False, True])
def test_cmyk_jpeg_keeps_its_colours(size, progressive):
    content = encoded(picture(*size, "CMYK"), quality=95, progressive=progressive)
    assert_close(quarters(stored_picture(content, SMALL_SPEC)), QUARTERS, tolerance=12)


def test_a_large_greyscale_jpeg_becomes_rgb():
    assert_close(quarters(stored_picture(encoded(Image.new("L", (600, 600), 77)))), [(77, 77, 77)] * 4, tolerance=2)


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(np.full((8, 8), 32768, np.uint16)), "PNG"),
        encoded(Image.fromarray(np.full((8, 8), 32768, np.uint16)), "TIFF"),
        encoded(Image.fromarray(np.full((8, 8), 32768, np.int32)), "TIFF"),
        encoded(Image.fromarray(np.full((400, 400), 32768, np.uint16)), "PNG"),
        png(1, 1, 16, 0, sixteen_bit_row(32768)),
        png(1, 1, 16, 2, sixteen_bit_row(32768, 32768, 32768)),
        png(1, 1, 16, 4, sixteen_bit_row(32768, 65535)),
        png(1, 1, 16, 6, sixteen_bit_row(32768, 32768, 32768, 65535)),
    ],
    ids=["png", "tiff", "tiff32", "large", "grey", "rgb", "grey+alpha", "rgba"],
)
def test_sixteen_bit_grey_stays_in_the_middle(content):
    assert_close(quarters(stored_picture(content)), [(128, 128, 128)] * 4, tolerance=1)


@each_case(("value", "byte"), [(0, 0), (256, 1), (65535, 255)])
def test_sixteen_bits_span_all_of_eight(value, byte):
    assert_close(stored_picture(png(1, 1, 16, 0, sixteen_bit_row(value))).getpixel((0, 0)), (byte,) * 3, tolerance=1)


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"), (255, 255, 255)),
        (encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128)), "PNG"), (255, 127, 127)),
        (encoded(Image.new("LA", (8, 8), (0, 0)), "PNG"), (255, 255, 255)),
        (encoded(Image.new("P", (8, 8), 0), "PNG", transparency=b"\x00"), (255, 255, 255)),
        (encoded(Image.new("P", (8, 8), 0), "GIF", transparency=0), (255, 255, 255)),
        (png(1, 1, 8, 0, b"\0\x10", (b"tRNS", b"\0\x10")), (255, 255, 255)),
        (encoded(Image.new("1", (8, 8), 1), "PNG"), (255, 255, 255)),
    ],
    ids=["clear", "half", "grey", "palette", "gif", "key colour", "no alpha"],
)
def test_transparency_lies_over_white(content, colour):
    assert_close(stored_picture(content).getpixel((0, 0)), colour, tolerance=3)


@each_case("form", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@each_case("mode", ["RGB", "P"])
def test_other_formats_keep_their_colours(form, mode):
    image = picture(90, 60).convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else picture(90, 60)
    content = encoded(image.convert("RGB") if form in ("PPM", "WEBP") else image, form)
    assert_close(quarters(stored_picture(content)), QUARTERS, tolerance=12)


def test_the_first_picture_of_an_animation_is_taken():
    content = encoded(Image.new("P", (9, 9), 0), "GIF", save_all=True, append_images=[Image.new("P", (9, 9), 200)])
    assert_close(stored_picture(content).getpixel((4, 4)), (0, 0, 0))


def transparent(mode):
    """Return a picture of which half is transparent."""
    image = picture(321, 203).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


LARGE_IMAGES = {
    "rgba": encoded(transparent("RGBA"), "PNG"),
    "grey+alpha": encoded(transparent("LA"), "PNG"),
    "palette": encoded(picture(321, 203).quantize(16), "PNG", transparency=3),
    "cmyk": encoded(noise(203, 321, "CMYK"), "TIFF"),
    "16 bits": encoded(Image.fromarray(np.arange(203 * 321, dtype=np.uint16).reshape(203, 321)), "PNG"),
    "rgb": encoded(noise(321, 203), "PNG"),
}


@pytest.mark.parametrize("side", [150, 48, 10])
@pytest.mark.parametrize("name", LARGE_IMAGES)
def test_a_large_image_is_converted_in_strips_to_the_same_pixels(monkeypatch, name, side):
    spec = ImageSpec(shorter_side_px=side)
    whole = store_image(LARGE_IMAGES[name], spec)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 2500)
    assert store_image(LARGE_IMAGES[name], spec) == whole


@each_case(
    ("fields", "message"),
    [
        ({"shorter_side_px": 0}, "shorter_side_px 0 is too small"),
        ({"quality": 0}, "quality 0 is out of range"),
        ({"quality": 101}, "quality 101 is out of range"),
    ],
)
def test_an_impossible_spec_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageSpec(**fields)


def test_real_photographs_keep_their_aspect(shared_data):
    paths = sorted((shared_data / "coco-mini" / "images").iterdir())[:4]
    for path in paths:
        before, after = decoded(path.read_bytes()), stored_picture(path.read_bytes())
        assert min(after.size) == 256
        assert after.width / after.height == pytest.approx(before.width / before.height, rel=0.005)
