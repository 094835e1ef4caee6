import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MODEL, TRAINING, VOCABULARY, batch, encoded, jpeg, sample

from captioning.batches import BadSample, CaptionedJpeg, blank_batch, make_batch
from captioning.config import TrainingConfig
from captioning.pixels import Augmentation, decode_image
from captioning.vocabulary import BOS, EOS, PAD

CROP = Augmentation(seed=0, crop_area=0.25, flip=False)
FLIP = Augmentation(seed=0, crop_area=1.0, flip=True)


def coordinates(width, height):
    """Return a picture whose red says x and whose green says y, in steps of two."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns * 2, rows * 2, rows * 0], axis=-1).astype(np.uint8))


def seen(size_px, image, **options):
    """Return the first and last x and y that a decoded square shows."""
    red, green, _ = decode_image(encoded(image, "PNG"), size_px, **options).float() / 2
    return tuple(round(float(value)) for value in (red[0, 0], red[0, -1], green[0, 0], green[-1, 0]))


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("position", range(4))
def test_a_crop_of_a_large_jpeg_keeps_its_pixels(position):
    # Decoded at half of its size, as the whole square would be, the picture lacks the pixels that a crop asks for.
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


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_jpeg_of_any_colour_space_becomes_rgb(mode):
    grey = Image.new("RGB", (40, 40), (90, 90, 90)).convert(mode)
    assert (decode_image(encoded(grey), 32).float() - 90).abs().max() <= 3


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert decode_image(encoded(clear, "PNG"), 32).unique().tolist() == [255]


def test_an_image_stands_as_its_exif_says():
    turned = coordinates(64, 96)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    lying = turned.transpose(Image.Transpose.ROTATE_90)
    shown = decode_image(encoded(lying, "PNG", exif=exif), 64)
    assert torch.equal(shown, decode_image(encoded(turned, "PNG"), 64))


def turned_with_damaged_tag(number):
    """Return a JPEG to be turned by its EXIF, whose description is of another type than its tag says."""
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "hello", 6
    content = bytearray(encoded(coordinates(64, 96), exif=exif))
    content[content.index(b"Exif") + 19] = number
    return bytes(content)


UNDECODABLE = [jpeg(0)[:400], b"", b"GIF89a", jpeg(0)[:3], turned_with_damaged_tag(11)]


@pytest.mark.parametrize("content", UNDECODABLE)
def test_an_image_that_does_not_decode_is_named(content):
    with pytest.raises(ValueError, match=r"^the image does not decode"):
        decode_image(content, 32)


def test_an_image_too_large_to_be_one_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(ValueError, match=r"the image does not decode .*exceeds limit"):
        decode_image(jpeg(0), 32)


FOUND_WHILE_READING = BadSample("000123", "s.tar", 9, "its json is not an object")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        *((CaptionedJpeg("000123", 9, content, ("a dog",), "s.tar"), "the image does not") for content in UNDECODABLE),
        (CaptionedJpeg("000123", 9, jpeg(0), (), "s.tar"), "it has no caption"),
        (FOUND_WHILE_READING, "its json is not an object"),
    ],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_bad_sample_is_left_out_and_listed(bad, reason, at):
    good = [sample(3), sample(7)]
    made = made_of(*good[:at], bad, *good[at:])
    assert_equal(made._replace(bad=()), made_of(*good))
    ((key, shard, position, found),) = made.bad
    assert (key, shard, position, found.startswith(reason)) == ("000123", "s.tar", 9, True)


def test_a_batch_of_bad_samples_is_blank_and_lists_them():
    bad = (FOUND_WHILE_READING, FOUND_WHILE_READING._replace(key="000124"))
    assert_equal(made_of(*bad), blank_batch(MODEL.image_size_px)._replace(bad=bad))


def test_a_blank_batch_has_an_image_to_compute_with_and_none_that_counts():
    blank = blank_batch(32)
    counts = (len(blank.images), blank.num_images, blank.num_targets, blank.positions(), blank.targets().tolist())
    assert counts == (1, 0, 0, [], [])


def test_a_batch_without_some_images_is_that_of_the_others():
    whole = made_of(*(sample(position) for position in (2, 5, 7, 11)), FOUND_WHILE_READING)
    fewer = whole.without({5, 11, 99})
    expected = made_of(sample(2), sample(7), FOUND_WHILE_READING)
    width = expected.tokens.shape[1]
    assert set(fewer.tokens[:, width:].unique().tolist()) <= {PAD}
    assert_equal(fewer._replace(tokens=fewer.tokens[:, :width]), expected)


def test_a_batch_without_all_of_its_images_is_blank():
    whole = made_of(sample(2), sample(5), FOUND_WHILE_READING)
    assert_equal(whole.without({2, 5}), made_of(FOUND_WHILE_READING))


def made_of(*samples):
    return make_batch(samples, VOCABULARY, model=MODEL, max_caption_words=8)


def assert_equal(batch, other):
    """Compare tensors and names."""
    assert batch[5:] == other[5:]
    torch.testing.assert_close(batch[:5], other[:5], rtol=0, atol=0)


def captions_batch(*captions, max_caption_words=5):
    samples = [CaptionedJpeg(f"{at}", 40 + at, jpeg(at), each, "s.tar") for at, each in enumerate(captions)]
    return make_batch(samples, VOCABULARY, model=MODEL, max_caption_words=max_caption_words)


def test_captions_are_padded_to_the_longest():
    a, dog, runs = VOCABULARY.encode("a dog runs")
    made = captions_batch(("a dog runs", "a"), ("dog",))
    assert made.tokens.tolist() == [[BOS, a, dog, runs, EOS], [BOS, a, EOS, PAD, PAD], [BOS, dog, EOS, PAD, PAD]]


def test_a_long_caption_is_cut_and_ends():
    a, dog, runs = VOCABULARY.encode("a dog runs")
    made = captions_batch(("a dog runs on the grass",), max_caption_words=3)
    assert made.tokens.tolist() == [[BOS, a, dog, runs, EOS]]


def test_each_caption_knows_its_image_position_and_number():
    made = captions_batch(("a", "dog"), ("cat",), ("a", "a", "a"))
    assert (made.image_of_caption.tolist(), made.position.tolist(), made.caption.tolist(), made.keys) == (
        [0, 0, 1, 2, 2, 2],
        [40, 40, 41, 42, 42, 42],
        [0, 1, 0, 0, 1, 2],
        ("0", "1", "2"),
    )


def test_each_image_knows_its_position_and_shard():
    made = batch([3, 4, 7])
    assert (made.positions(), made.shards) == ([3, 4, 7], ("train-000000.tar", "train-000000.tar", "train-000001.tar"))


def test_each_target_knows_its_image():
    assert captions_batch(("a", "a dog"), ("cat",)).image_of_target().tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_targets_are_all_words_but_bos_and_padding():
    a, dog, runs = VOCABULARY.encode("a dog runs")
    made = captions_batch(("a dog", "runs"))
    assert (made.targets().tolist(), made.num_targets) == ([a, dog, EOS, runs, EOS], 5)


def test_images_are_bytes_in_planes():
    images = batch(range(3)).images
    assert (images.shape, images.dtype) == ((3, 3, 64, 64), torch.uint8)


def test_a_batch_does_not_depend_on_who_reads_it():
    together = batch([3, 4, 5], is_augmented=True).images
    apart = [batch([position], is_augmented=True).images for position in (3, 4, 5)]
    assert torch.equal(together, torch.cat(apart))


def test_another_pass_over_the_data_augments_it_differently():
    first, second = (batch([position], is_augmented=True) for position in (3, 15))
    assert (torch.equal(first.tokens, second.tokens), torch.equal(first.images, second.images)) == (True, False)


def test_a_batch_moves_as_a_whole():
    moved = batch(range(2)).to(torch.device("meta"))
    assert {part.device.type for part in moved[:5]} == {"meta"}


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
