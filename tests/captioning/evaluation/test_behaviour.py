import numpy as np
import pytest

from captioning.data.tokenizers import PTB, UNICODE
from captioning.evaluation.behaviour import (
    CROPPED_PERCENT,
    REENCODED_QUALITY,
    Behaviour,
    Diversity,
    Variant,
    behaviour_of,
    caption_health,
    diversity_of,
    draw_images,
    has_repetition,
    make_variant,
)
from tests.support.case_table import each_case
from tests.support.pictures import QUARTERS, decoded, encoded, noise, picture, quarters

CAPTIONS = {1: "a dog", 2: "a cat on a mat", 3: "", 4: "a bird a bird", 5: " . "}


def figures(reencoded, cropped=None, captions=CAPTIONS):
    return behaviour_of(captions, {Variant.REENCODED: reencoded, Variant.CROPPED: cropped or reencoded})


def pixels(image):
    return np.asarray(image).astype(int)


def test_the_same_seed_chooses_the_same_images_and_another_seed_others():
    chosen = [draw_images(1000, 20, seed=seed) for seed in (5, 5, 6)]
    assert (chosen[0] == chosen[1], chosen[0] == chosen[2]) == (True, False)


def test_chosen_images_are_different_ones():
    assert len(set(draw_images(30, 20, seed=0))) == 20


def test_all_images_are_chosen_if_there_are_not_enough():
    assert draw_images(3, 20, seed=0) == [0, 1, 2]


def test_a_reencoded_image_has_the_stated_quality():
    found = decoded(make_variant(encoded(noise(40, 30), quality=95), Variant.REENCODED))
    wanted = decoded(encoded(noise(40, 30), quality=REENCODED_QUALITY))
    assert (found.size, found.quantization) == ((40, 30), wanted.quantization)


def test_a_reencoded_image_looks_the_same():
    found, stored = (
        decoded(make_variant(encoded(picture(64, 64)), Variant.REENCODED)),
        decoded(encoded(picture(64, 64))),
    )
    assert abs(pixels(found) - pixels(stored)).mean() < 4


def test_a_cropped_image_is_the_middle_at_its_own_scale():
    image = decoded(encoded(picture(400, 200), quality=95))
    found = decoded(make_variant(encoded(image, quality=95), Variant.CROPPED))
    x, y = 200 * CROPPED_PERCENT // 100, 100 * CROPPED_PERCENT // 100
    middle = pixels(image.crop((x, y, 400 - x, 200 - y)))
    assert (found.size, abs(pixels(found) - middle).mean() < 2) == ((400 - 2 * x, 200 - 2 * y), True)


@pytest.mark.parametrize("variant", Variant)
def test_the_same_image_varies_to_the_same_bytes(variant):
    jpeg = encoded(noise(40, 30))
    assert make_variant(jpeg, variant) == make_variant(jpeg, variant)


@pytest.mark.parametrize("variant", Variant)
def test_a_turned_image_varies_upright(variant):
    exif = decoded(encoded(picture(80, 60))).getexif()
    exif[0x0112] = 3  # orientation 3: a half turn
    upright = quarters(decoded(make_variant(encoded(picture(80, 60), exif=exif, quality=95), variant)))
    assert np.abs(np.array(upright) - np.array(QUARTERS[::-1])).max() < 20


@each_case("variant", Variant)
@each_case(("mode", "form"), [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")])
def test_images_of_any_mode_vary(variant, mode, form):
    assert decoded(make_variant(encoded(picture(40, 40, mode), form), variant)).mode == "RGB"


@pytest.mark.parametrize("variant", Variant)
def test_the_smallest_image_varies(variant):
    assert decoded(make_variant(encoded(picture(1, 2)), variant)).size == (1, 2)


@each_case(
    ("caption", "is_repeated"),
    [
        ("a dog on a dog on the grass", True),
        ("a dog dog runs", True),
        ("a man with a hat with a hat", True),
        ("a red and blue a red and blue bird", True),
        ("A dog, a dog.", True),  # words as the scores tokenize them
        ("a dog and a dog", False),  # not adjacent
        ("a bird is on a bird", False),
        ("dog", False),
        ("", False),
        ("one two three four five one two three four five", False),  # a phrase of five words
    ],
)
def test_a_caption_repeats_if_it_says_up_to_four_words_twice_running(caption, is_repeated):
    assert has_repetition(caption) == is_repeated


@pytest.mark.parametrize(("caption", "is_repeated"), [("妈妈慢慢走", False), ("一只狗一只狗", True)])
def test_a_doubled_character_is_a_word_and_no_repetition(caption, is_repeated):
    assert has_repetition(caption, UNICODE) == is_repeated


def test_shares_are_of_the_images_that_were_varied_and_of_all_captions():
    found = figures({1: "a dog", 2: "a mat", 4: "a bird a bird"}, {1: "a cat", 2: "a mat", 4: "a bird a bird"})
    assert found == Behaviour(
        num_images=3, same_when_reencoded=2 / 3, same_when_cropped=1 / 3, empty=0.4, repeated=0.2, num_different=5
    )


def test_captions_of_which_others_say_the_same_are_one():
    assert figures({1: "a dog"}, captions={1: "a dog", 2: "a cat", 3: "a dog"}).num_different == 2


def test_two_empty_captions_are_the_same():
    assert figures({3: ""}).same_when_reencoded == 1


def test_the_health_of_captions_is_what_they_have_in_common():
    captions = ["a dog", "A dog.", "a dog on a dog", "a cat a cat", "..."]
    assert caption_health(captions, tokenizer=PTB) == {
        "health_captions": 5.0, "health_top_caption_share": 0.4, "health_different_captions": 4.0,
        "health_different_words": 4.0, "health_repeated_share": 0.2, "health_empty_share": 0.2,
    }  # fmt: skip


def test_captions_are_different_by_their_words_and_novel_if_no_training_caption_has_these():
    captions = ["A dog runs.", "a dog runs", "A red bird.", "..."]
    found = diversity_of(captions, training=["a dog, runs!", "a cat"])
    assert found == Diversity(num_captions=4, num_different=3, num_empty=1, num_words=5, novel=0.5)
    assert diversity_of(captions).novel is None
    assert list(found.as_dict())[:4] == list(diversity_of(captions).as_dict())
