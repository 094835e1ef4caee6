"""Decoding of JPEGs and other images to squares of pixels."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.config import TrainingConfig
from captioning.data import pixels
from captioning.data.pixels import Augmentation, decode_image
from tests.support.case_table import each_case
from tests.support.pictures import noise, with_scans
from tests.support.tiny_models import TRAINING, encoded, jpeg

CROP = Augmentation(seed=0, crop_area=0.25, flip=False)
FLIP = Augmentation(seed=0, crop_area=1.0, flip=True)


def coordinates(width, height):
    """Return an image with x as red and y as green, in steps of two."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns * 2, rows * 2, rows * 0], axis=-1).astype(np.uint8))


def seen(size_px, image, **options):
    """Return the first and last x and y in a decoded square."""
    red, green, _ = decode_image(encoded(image, "PNG"), size_px, **options).float() / 2
    return tuple(round(float(value)) for value in (red[0, 0], red[0, -1], green[0, 0], green[-1, 0]))


@each_case(
    ("size", "corners"),
    [
        ((96, 64), (16, 79, 0, 63)),
        ((64, 96), (0, 63, 16, 79)),
        ((64, 64), (0, 63, 0, 63)),
    ],
)
def test_without_augmentation_the_centre_square_is_seen(size, corners):
    assert seen(64, coordinates(*size)) == corners


def test_a_large_jpeg_is_decoded_small_with_the_same_geometry():
    photograph = coordinates(120, 100).resize((960, 800), Image.Resampling.BICUBIC)
    small = decode_image(encoded(photograph, quality=95), 64).float()
    exact = decode_image(encoded(photograph, "PNG"), 64).float()
    assert (small - exact).abs().mean() < 2


@each_case("position", range(4))
def test_a_crop_of_a_large_jpeg_keeps_its_pixels(position):
    # Decoded at half of its size, as for the whole square, the image would lack pixels for a crop.
    stripes = Image.fromarray((np.indices((256, 256))[1] // 2 % 2 * 255).astype(np.uint8))
    small = decode_image(encoded(stripes, quality=95), 128, augmentation=CROP, position=position).float()
    exact = decode_image(encoded(stripes, "PNG"), 128, augmentation=CROP, position=position).float()
    assert (small - exact).abs().mean() < 3


def test_a_position_always_has_the_same_crop():
    image = encoded(coordinates(100, 80), "PNG")
    first, other, again = (decode_image(image, 32, augmentation=CROP, position=at) for at in (5, 6, 5))
    assert (torch.equal(first, again), torch.equal(first, other)) == (True, False)


def test_another_seed_has_another_crop():
    image = encoded(coordinates(100, 80), "PNG")
    crops = [decode_image(image, 32, augmentation=CROP._replace(seed=seed), position=5) for seed in (0, 1)]
    assert not torch.equal(*crops)


def test_crops_lie_in_the_image_and_keep_their_share_of_the_largest_square():
    corners = np.array([seen(80, coordinates(100, 80), augmentation=CROP, position=at) for at in range(200)])
    left, right, top, bottom = corners.T
    sides = right - left + 1
    assert np.abs(sides - (bottom - top + 1)).max() <= 2  # squares
    assert (corners.min(), right.max(), bottom.max()) == (0, 99, 79)
    assert sides.min() in (40, 41)
    assert sides.max() in (79, 80)


def test_a_whole_crop_area_crops_only_the_longer_side():
    augmentation = Augmentation(seed=0, crop_area=1.0, flip=False)
    corners = np.array([seen(80, coordinates(100, 80), augmentation=augmentation, position=at) for at in range(50)])
    left, right, top, bottom = corners.T
    assert set(right - left) | set(bottom - top) <= {78, 79, 80}
    assert (left.min() < 3, left.max() > 17) == (True, True)


def test_half_of_the_images_are_mirrored():
    image = coordinates(64, 64)
    mirrored = [seen(64, image, augmentation=FLIP, position=at) == (63, 0, 0, 63) for at in range(400)]
    assert 160 < sum(mirrored) < 240


def test_nothing_is_mirrored_if_flip_is_off():
    augmentation = Augmentation.of(TrainingConfig(crop_area=1.0, flip=False))
    shown = {seen(64, coordinates(64, 64), augmentation=augmentation, position=at) for at in range(50)}
    assert shown == {(0, 63, 0, 63)}


@each_case("mode", ["L", "CMYK", "RGB"])
def test_a_jpeg_of_any_colour_space_becomes_rgb(mode):
    grey = Image.new("RGB", (40, 40), (90, 90, 90)).convert(mode)
    assert (decode_image(encoded(grey), 32).float() - 90).abs().max() <= 3


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert decode_image(encoded(clear, "PNG"), 32).unique().tolist() == [255]


@each_case(("value", "byte"), [(0, 0), (256, 1), (32768, 128), (65535, 255)])
def test_sixteen_bits_span_all_of_eight(value, byte):
    image = Image.fromarray(np.full((8, 8), value, np.uint16))
    assert decode_image(encoded(image, "PNG"), 8).unique().tolist() == [byte]


@pytest.mark.parametrize("position", [None, 0, 1])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P"])
@pytest.mark.parametrize("size", [(161, 102), (102, 161), (5, 450)])
def test_a_large_image_is_converted_in_strips_to_the_same_pixels(monkeypatch, size, mode, position):
    image = noise(*size)
    image.putalpha(Image.linear_gradient("L").resize(size))
    options = {} if position is None else {"augmentation": CROP, "position": position}
    content = encoded(image.convert("RGB" if mode == "P" else mode).convert(mode), "PNG")
    whole = decode_image(content, 40, **options)
    monkeypatch.setattr(pixels, "_STRIP_PIXELS", 700)
    strips = decode_image(content, 40, **options)
    # The square's place in a strip, often between pixels, is rounded differently.
    assert (strips.int() - whole.int()).abs().max() <= 1


def test_an_image_stands_as_its_exif_says():
    turned = coordinates(64, 96)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation 6: a viewer rotates by 90 degrees clockwise
    lying = turned.transpose(Image.Transpose.ROTATE_90)
    shown = decode_image(encoded(lying, "PNG", exif=exif), 64)
    assert torch.equal(shown, decode_image(encoded(turned, "PNG"), 64))


def turned_with_damaged_tag(number):
    """Return a JPEG with an EXIF rotation and an EXIF description of the wrong type."""
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "hello", 6
    content = bytearray(encoded(coordinates(64, 96), exif=exif))
    content[content.index(b"Exif") + 19] = number
    return bytes(content)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("number", [11, 255])
def test_damaged_exif_hides_no_picture(number):
    assert decode_image(turned_with_damaged_tag(number), 32).any()


HALF = jpeg(0)[: len(jpeg(0)) // 2]
UNDECODABLE = [jpeg(0)[:400], b"", b"GIF89a", jpeg(0)[:3], HALF, HALF + b"\xff\xd9", HALF + bytes(900), jpeg(0)[:-2]]


@each_case("content", UNDECODABLE)
def test_an_image_that_does_not_decode_is_named(content):
    with pytest.raises(ValueError, match=r"^the image does not decode"):
        decode_image(content, 32)


@each_case("size", [(300, 200), (200, 300), (64, 64), (40, 30), (1040, 784)])
@each_case("mode", ["RGB", "L", "CMYK"])
@each_case("by_pillow", [False, True])
def test_the_centre_is_what_pillow_decodes_and_resizes(size, mode, by_pillow):
    content = encoded(noise(*(length // 8 for length in size)).resize(size, Image.Resampling.BICUBIC).convert(mode))
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (64, 64))
        side, (width, height) = min(image.size), image.size
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        exact = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR, box=box))
    found = decode_image(content, 64, by_pillow=by_pillow).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(float) - exact).mean() <= (0 if by_pillow else 2)


@each_case("position", range(5))
def test_a_picture_is_cropped_alike_in_every_format(position):
    image = noise(20, 16).resize((200, 161), Image.Resampling.BICUBIC)
    augmentation = Augmentation(seed=3, crop_area=0.3, flip=True)
    shown = [
        decode_image(content, 120, augmentation=augmentation, position=position).float()
        for content in (encoded(image, "PNG"), encoded(image, quality=100, subsampling=0))
    ]
    assert (shown[0] - shown[1]).abs().mean() < 1


def test_a_form_whose_reader_starts_a_program_is_not_opened():
    with pytest.raises(ValueError, match=r"^the image does not decode \(it begins with b'%!PS-Ado'\)"):
        decode_image(encoded(coordinates(8, 8), "EPS"), 8)


def test_a_jpeg_of_as_many_scans_as_no_encoder_writes_is_named():
    content = encoded(coordinates(40, 30), progressive=True)
    assert decode_image(with_scans(content, 100), 32).any()
    with pytest.raises(
        ValueError, match=r"does not decode \(its 101 scans of 1200 pixels take too long; save it as a b"
    ):
        decode_image(with_scans(content, 101), 32)


def test_fractions_of_an_unknown_range_are_named():
    with pytest.raises(ValueError, match="floating-point numbers of an unknown range; save it with 8 bits"):
        decode_image(encoded(Image.new("F", (8, 8), 0.5), "TIFF"), 8)


def test_an_image_too_large_to_be_one_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(ValueError, match=r"the image does not decode .*exceeds limit"):
        decode_image(jpeg(0), 32)


def test_a_real_photograph_fills_its_square(shared_data):
    photograph = min((shared_data / "coco-mini" / "images").glob("*.jpg")).read_bytes()
    with Image.open(io.BytesIO(photograph)) as image:
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        square = image.convert("RGB").resize((224, 224), Image.Resampling.BOX, box=(left, top, left + side, top + side))
    expected = torch.from_numpy(np.asarray(square).transpose(2, 0, 1).astype(np.float32))
    assert (decode_image(photograph, 224).float() - expected).abs().mean() < 5


def test_an_augmentation_is_that_of_the_training_run():
    config = replace(TRAINING, seed=4, crop_area=0.6, flip=False)
    assert Augmentation.of(config) == Augmentation(seed=4, crop_area=0.6, flip=False)
