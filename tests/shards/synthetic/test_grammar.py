"""Captions of synthetic scenes: all of a scene's own captions are true, and one wrong claim makes a caption false."""

from collections import Counter
from itertools import pairwise

import pytest

from shards.synthetic.grammar import Scene, SceneObject, describe, is_true
from shards.synthetic.scenes import draw_scene
from tests.support.case_table import each_case

SCENES = [draw_scene(3, index) for index in range(400)]


def scene_with(*objects, size_px=96):
    return Scene(size_px=size_px, background=(255, 255, 255), objects=objects, wording=0)


def item(colour, shape, x, y, *, size="small"):
    return SceneObject(shape=shape, colour=colour, size=size, centre_px=(x, y), radius_px=10.0)


RED_CIRCLE, BLUE_RING = item("red", "circle", 25, 48), item("blue", "ring", 70, 50, size="large")
SIDE_BY_SIDE = scene_with(RED_CIRCLE, BLUE_RING)
ONE_OVER_TWO = scene_with(
    item("black", "circle", 48, 25), item("green", "cross", 25, 70), item("green", "cross", 70, 70)
)
FOUR_RINGS = scene_with(*(item("yellow", "ring", x, y) for x in (25, 70) for y in (25, 70)))


def test_five_different_captions_are_true_of_their_own_scene():
    for scene in SCENES:
        captions = describe(scene)
        assert len(set(captions)) == 5
        assert all(is_true(caption, scene) for caption in captions), captions


def test_captions_stay_true_as_a_captioner_writes_them():
    for scene in SCENES:
        assert all(is_true(caption.lower().rstrip(" ."), scene) for caption in describe(scene))


def test_captions_are_sentences():
    for caption in describe(SCENES[0]):
        assert caption[0].isupper()
        assert caption.endswith(".")


def test_captions_of_another_scene_are_mostly_false():
    wrong = [is_true(caption, other) for scene, other in pairwise(SCENES) for caption in describe(scene)]
    assert sum(wrong) < 0.01 * len(wrong)


def test_every_word_is_frequent_and_words_are_few():
    words = Counter(word for scene in SCENES for caption in describe(scene) for word in caption.lower()[:-1].split())
    assert 25 <= len(words) <= 50
    assert min(words.values()) >= 20


def test_scenes_vary_in_count_and_relation():
    seen = Counter(len(scene.objects) for scene in SCENES)
    assert all(seen[count] > 20 for count in (1, 2, 3, 4))
    captions = [caption for scene in SCENES for caption in describe(scene)]
    assert all(sum(relation in caption for caption in captions) > 400 for relation in (" left of ", " above "))


@each_case(
    ("caption", "scene"),
    [
        ("a small red circle to the left of a large blue ring", SIDE_BY_SIDE),
        ("a red circle to the left of a blue ring", SIDE_BY_SIDE),  # sizes may be left out
        ("there is a red circle to the left of a large blue ring", SIDE_BY_SIDE),  # or one of them
        ("a picture of a blue ring to the right of a small red circle", SIDE_BY_SIDE),
        ("The picture shows a red circle to the left of a blue ring.", SIDE_BY_SIDE),
        ("a black circle above two green crosses", ONE_OVER_TWO),
        ("there are two green crosses below a small black circle", ONE_OVER_TWO),
        ("an image with a black circle above two small green crosses .", ONE_OVER_TWO),
        ("four small yellow rings", FOUR_RINGS),
        ("there are four yellow rings", FOUR_RINGS),
    ],
)
def test_a_true_caption_is_accepted(caption, scene):
    assert is_true(caption, scene)


@each_case(
    ("caption", "scene"),
    [
        ("a green circle to the left of a blue ring", SIDE_BY_SIDE),  # colour
        ("a blue circle to the left of a red ring", SIDE_BY_SIDE),  # colours exchanged
        ("a red cross to the left of a blue ring", SIDE_BY_SIDE),  # shape
        ("a red ring to the left of a blue circle", SIDE_BY_SIDE),  # shapes exchanged
        ("two red circles to the left of a blue ring", SIDE_BY_SIDE),  # count
        ("a large red circle to the left of a blue ring", SIDE_BY_SIDE),  # size
        ("a red circle to the left of a small blue ring", SIDE_BY_SIDE),
        ("a red circle to the right of a blue ring", SIDE_BY_SIDE),  # relation
        ("a red circle above a blue ring", SIDE_BY_SIDE),
        ("two green crosses above a black circle", ONE_OVER_TWO),
        ("three small yellow rings", FOUR_RINGS),
    ],
)
def test_a_caption_with_one_wrong_claim_is_false(caption, scene):
    assert not is_true(caption, scene)


@each_case(
    "caption",
    [
        "a red circle",  # one of the two groups
        "a red circle and a blue ring",  # how do they lie?
        "a red circle on the left",
        "a circle to the left of a blue ring",
        "a red circle to the left of",
    ],
)
def test_an_incomplete_caption_is_false(caption):
    assert not is_true(caption, SIDE_BY_SIDE)


@each_case(
    "caption",
    [
        "",
        "an red circle to the left of a blue ring",
        "one red circle to the left of a blue ring",
        "a red circles to the left of a blue ring",
        "there are a red circle to the left of a blue ring",
        "a red small circle to the left of a blue ring",
        "a red circle to the left of a blue ring a blue ring",
        "a red circle to the left of a blue ring to the left of",
        "a a red circle to the left of a blue ring",
        "a red <unk> to the left of a blue ring",
        "there is a picture of a red circle to the left of a blue ring",
    ],
)
def test_a_caption_outside_the_grammar_is_false(caption):
    assert not is_true(caption, SIDE_BY_SIDE)


UNCLEAR = {
    "diagonal": scene_with(item("red", "circle", 20, 20), item("blue", "ring", 70, 70)),
    "overlapping": scene_with(item("red", "circle", 40, 40), item("blue", "ring", 45, 45)),
    "three groups": scene_with(RED_CIRCLE, BLUE_RING, item("green", "cross", 48, 10)),
    "five objects": scene_with(*FOUR_RINGS.objects, item("yellow", "ring", 48, 48)),
    "empty": scene_with(),
}


@pytest.mark.parametrize("scene", UNCLEAR.values(), ids=UNCLEAR)
def test_a_scene_beyond_the_grammar_has_no_captions(scene):
    assert not is_true("a red circle above a blue ring", scene)
    with pytest.raises(ValueError, match=r"the grammar cannot describe \d objects that are neither"):
        describe(scene)
