"""The codec of conversion stores what Pillow does, and refuses what is damaged."""

import random

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from captioning import image_limits as captioned
from captioning.data.pixels import upright_rgb
from cluster.codec import TurboCodec
from shards.images import ImageSpec, store_image, to_rgb
from shards.imaging import limits as stored
from tests.support.case_table import each_case
from tests.support.pictures import decoded, encoded, noise, picture

CODEC, SPEC, LARGEST = TurboCodec(), ImageSpec(), ImageSpec(shorter_side_px=5_000)
SMALL_SPEC = ImageSpec(shorter_side_px=48, quality=95)
LARGEST_DIFFERENCE = 2  # of 255, most of it from the encoders, which round differently


def photograph(width, height, mode="RGB"):
    """Return a picture of noise that is as smooth as a photograph."""
    coarse = noise(max(1, width // 16), max(1, height // 16))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def difference(content, spec):
    """Return the mean absolute difference between what the codec and what Pillow stores."""
    ours, theirs = store_image(content, spec, CODEC), store_image(content, spec)
    assert ours[1:] == theirs[1:]
    return np.abs(np.subtract(*(np.asarray(decoded(one.jpeg).convert("RGB"), float) for one in (ours, theirs)))).mean()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"exif": 6}, {"exif": 2}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_of_any_size_is_stored_as_pillow_stores_it(options, mode):
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112] = options["exif"]
        options = {"exif": exif}
    sizes = [(60, 40), (150, 100), (300, 200), (40, 301), (519, 387), (48, 48), (1, 900)]
    contents = {size: encoded(photograph(*size, mode), quality=95, **options) for size in sizes}
    found = {size: difference(content, SMALL_SPEC) for size, content in contents.items()}
    assert {size: value for size, value in found.items() if value >= LARGEST_DIFFERENCE} == {}


@each_case("form", ["PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_other_formats_are_stored_as_pillow_stores_them(form):
    assert difference(encoded(photograph(150, 100), form), SMALL_SPEC) < LARGEST_DIFFERENCE


def test_a_fine_pattern_is_averaged_rather_than_aliased():
    stripes = Image.fromarray((np.indices((480, 640))[1] % 2 * 255).astype(np.uint8))
    stored = decoded(store_image(encoded(stripes, quality=95), SPEC, CODEC).jpeg)
    assert np.asarray(stored, float)[8:-8, 8:-8].std() < 4


def test_shrinking_shifts_nothing():
    # 1,031 px decode to 516 px at half size, of which the last is half empty.
    edge = Image.new("RGB", (1031, 1031), "white")
    edge.paste("black", (0, 0, 515, 1031))
    row = np.asarray(decoded(store_image(encoded(edge, quality=95), SPEC, CODEC).jpeg).convert("L"))[128].astype(float)
    assert (255 - row).sum() / 255 == pytest.approx(256 * 515 / 1031, abs=0.1)


def test_a_fitting_jpeg_is_stored_byte_for_byte():
    content = encoded(picture(90, 60))
    assert store_image(content, SPEC, CODEC) == (content, 90, 60)


GENERATOR = random.Random(0)
FORMS = {
    "baseline": encoded(noise(320, 240)),
    "progressive": encoded(noise(320, 240), progressive=True),
    "restarts": encoded(noise(320, 240), restart_marker_rows=1),
    "grey": encoded(noise(320, 240, "L")),
    "cmyk": encoded(noise(320, 240, "CMYK")),
}
DAMAGE = {
    "half": lambda content: content[: len(content) // 2],
    "half and an end": lambda content: content[: len(content) // 2] + b"\xff\xd9",
    "half of zeros": lambda content: content[: len(content) // 2] + bytes(len(content) // 2),
    "half of zeros and an end": lambda content: content[: len(content) // 2] + bytes(len(content) // 2) + b"\xff\xd9",
    "a hole": lambda content: content[:9000] + bytes(4096) + content[9000 + 4096 :],
    "a gap": lambda content: content[:9000] + content[9000 + 4096 :],
    "nonsense": lambda content: content[:9000] + GENERATOR.randbytes(4096) + content[9000 + 4096 :],
    "no end": lambda content: content[:-2],
    "no last bytes": lambda content: content[:-60] + b"\xff\xd9",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_in_any_form_whether_the_image_shrinks_or_not(damage):
    for content in FORMS.values():
        for spec in (SMALL_SPEC, LARGEST):
            with pytest.raises(ValueError, match=r"^it does not decode \(.*\); fetch it again$"):
                store_image(DAMAGE[damage](content), spec, CODEC)


def with_segment(kind, data, length=None):
    """Return a JPEG with one more segment of metadata, whose length may be wrong."""
    content = FORMS["baseline"]
    return content[:2] + b"\xff" + bytes([kind]) + (length or len(data) + 2).to_bytes(2, "big") + data + content[2:]


@pytest.mark.parametrize(
    "content",
    [
        FORMS["baseline"] + b"\xff\xd8 and what a camera adds",
        FORMS["baseline"] + bytes(5_000),
        FORMS["baseline"][:-2] + b"\0\xff\xd9",
        FORMS["baseline"][:-2] + b"\xff\xff\xff\xd9",
        with_segment(0xE1, b"Exif\0\0\xff\xff\xff\xff"),
        with_segment(0xE1, b"Exif\0\0II*\0" + bytes(40), length=20),
        with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta"),
        with_segment(0xE2, b"ICC_PROFILE\0\7\3 no profile"),
        with_segment(0xFE, b"\xff\xda a comment"),
    ],
    ids=["trailing bytes", "trailing zeros", "padding", "filling", "exif", "exif length", "xmp", "icc", "comment"],
)
def test_what_every_viewer_shows_is_stored(content):
    expected = store_image(FORMS["baseline"], SMALL_SPEC, CODEC)
    assert store_image(content, SMALL_SPEC, CODEC) == expected
    assert store_image(content, LARGEST, CODEC).jpeg == content


def test_real_photographs_are_stored_as_pillow_stores_them(shared_data):
    paths = sorted((shared_data / "coco-mini" / "images").iterdir())[:4]
    assert max(difference(path.read_bytes(), ImageSpec(quality=95)) for path in paths) < LARGEST_DIFFERENCE


def of_mode(mode):
    """Return an image of a mode, with values over the mode's whole range."""
    rng = np.random.default_rng(3)
    if mode.startswith("I;16"):
        return Image.fromarray(rng.integers(0, 2**16, (12, 17), dtype=np.uint16))
    if mode == "I":
        return Image.fromarray(rng.integers(-5, 2**17, (12, 17)).astype(np.int32))
    return Image.fromarray(rng.integers(0, 256, (12, 17, 4), dtype=np.uint8), "RGBA").convert(mode)


@each_case("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_a_stored_picture_and_one_that_is_captioned_have_the_same_colours(mode):
    image = of_mode(mode)
    assert np.array_equal(to_rgb(image), upright_rgb(image))


def test_numbers_of_an_unknown_range_are_refused_by_both():
    image = Image.fromarray(np.zeros((4, 4), np.float32))
    for convert in (to_rgb, upright_rgb):
        with pytest.raises(ValueError, match="floating-point numbers of an unknown range"):
            convert(image)


def test_texts_of_a_png_are_left_out_by_both():
    info = PngInfo()
    info.add_text("comment", "a" * 500, zip=True)
    content = encoded(picture(16, 16), "PNG", pnginfo=info)
    for damaged in (content, content[:-30], content[:50]):
        assert stored.without_text(damaged) == captioned.without_text(damaged)
    assert len(stored.without_text(content)) < len(content)


@each_case("num_scans", [1, 100, 101, 10_000])
@each_case("num_pixels", [1, 10**6, 10**8])
def test_scans_are_limited_alike(num_scans, num_pixels):
    def is_refused(require):
        try:
            require(num_scans, num_pixels)
        except ValueError:
            return True
        return False

    assert is_refused(stored.require_few_scans) == is_refused(captioned.require_few_scans)
