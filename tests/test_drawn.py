from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from PIL import Image
from pycocotools.coco import COCO

from shards.drawn import Scene, SceneObject, describe, draw_scene, is_true, render, scene_of, write_drawn

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


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(folder, split, capsys):
    coco = COCO(folder / "annotations" / f"captions_{split}.json")
    capsys.readouterr()  # pycocotools prints
    return coco


def test_a_scene_depends_on_seed_and_index_alone():
    draw_scene(3, 6)
    assert [draw_scene(3, 7), draw_scene(3, 5)] == [SCENES[7], SCENES[5]]
    assert draw_scene(4, 5) != SCENES[5]


def test_every_seed_that_is_an_integer_draws():
    assert len({draw_scene(seed, 0).objects for seed in (-1, 0, 2**63, 2**70 + 1)}) == 4


def test_another_size_shows_the_same_scene():
    assert [describe(draw_scene(3, index, size_px=48)) for index in range(50)] == [describe(s) for s in SCENES[:50]]


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


def test_objects_stay_inside_the_image_and_apart():
    for scene in SCENES:
        for place, one in enumerate(scene.objects):
            assert all(one.radius_px <= centre <= scene.size_px - one.radius_px for centre in one.centre_px)
            for other in scene.objects[:place]:
                gap = max(abs(a - b) for a, b in zip(one.centre_px, other.centre_px, strict=True))
                assert gap > one.radius_px + other.radius_px


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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
    with pytest.raises(ValueError, match=r"the grammar describes no other scene"):
        describe(scene)


def test_shapes_are_painted_where_the_scene_says():
    image = render(replace(SIDE_BY_SIDE, background=(240, 240, 240)))
    assert image.size == (96, 96)
    on_the_ring = round(70 + 0.75 * BLUE_RING.radius_px), 50
    assert [image.getpixel(at) for at in ((25, 48), on_the_ring, (70, 50), (48, 90))] == [
        (220, 30, 30),
        (40, 70, 220),
        (240, 240, 240),  # a ring has a hole
        (240, 240, 240),
    ]


def test_no_two_scenes_look_the_same():
    assert len({scene.background for scene in SCENES}) == len(SCENES)
    assert len({render(scene).tobytes() for scene in SCENES[:100]}) == 100


def test_the_same_arguments_write_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_drawn(tmp_path / name, num_train=6, num_val=2, seed=9, num_unseen=2)
    first = files(tmp_path / "one")
    assert first == files(tmp_path / "two")
    write_drawn(tmp_path / "one", num_train=6, num_val=2, seed=9, num_unseen=2)
    assert first == files(tmp_path / "one")


def test_a_killed_run_leaves_no_annotations_and_can_be_repeated(tmp_path, monkeypatch):
    write_drawn(tmp_path / "whole", num_train=4, num_val=2, seed=9)
    write_drawn(tmp_path / "torn", num_train=4, num_val=2, seed=8)
    with monkeypatch.context() as patch:
        patch.setattr("shards.drawn.render", lambda scene: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_drawn(tmp_path / "torn", num_train=4, num_val=2, seed=9)
    assert not list((tmp_path / "torn" / "annotations").iterdir())
    write_drawn(tmp_path / "torn", num_train=4, num_val=2, seed=9)
    assert files(tmp_path / "torn") == files(tmp_path / "whole")


def test_coco_reads_what_was_written(tmp_path, capsys):
    write_drawn(tmp_path, num_train=6, num_val=3, seed=9, size_px=64, num_unseen=2)
    coco = load(tmp_path, "val", capsys)
    assert sorted(coco.imgs) == [7, 8, 9]
    picture = coco.imgs[8]
    assert picture == {"id": 8, "file_name": "000000000008.jpg", "width": 64, "height": 64}
    with Image.open(tmp_path / "images" / picture["file_name"]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")


def test_annotations_lead_back_to_the_scene(tmp_path, capsys):
    write_drawn(tmp_path, num_train=6, num_val=3, seed=9, size_px=64)
    coco = load(tmp_path, "val", capsys)
    for image_id in coco.imgs:
        captions = tuple(annotation["caption"] for annotation in coco.imgToAnns[image_id])
        assert captions == describe(scene_of(image_id, seed=9, size_px=64))


def test_splits_share_no_image_and_no_id(tmp_path, capsys):
    write_drawn(tmp_path, num_train=6, num_val=3, seed=9, num_unseen=2)
    splits = [load(tmp_path, split, capsys) for split in ("train", "val", "unseen")]
    assert sum(len(coco.imgs) for coco in splits) == len({image_id for coco in splits for image_id in coco.imgs}) == 11
    assert len({number for coco in splits for number in coco.anns}) == 55
    assert len({path.read_bytes() for path in (tmp_path / "images").iterdir()}) == 11


def test_a_split_of_no_images_is_not_written(tmp_path):
    write_drawn(tmp_path, num_train=1, num_val=1, seed=9, num_unseen=1)
    write_drawn(tmp_path, num_train=1, num_val=0, seed=9)
    assert [path.name for path in (tmp_path / "annotations").iterdir()] == ["captions_train.json"]


@pytest.mark.parametrize(("train", "val", "unseen"), [(0, 1, 0), (1, -1, 0), (1, 1, -2)])
def test_impossible_counts_are_refused(tmp_path, train, val, unseen):
    with pytest.raises(ValueError, match=rf"'train': {train}, 'val': {val}, 'unseen': {unseen}.*train needs 1 or more"):
        write_drawn(tmp_path, num_train=train, num_val=val, seed=0, num_unseen=unseen)
    assert not list(tmp_path.iterdir())


def test_a_negative_index_is_refused():
    with pytest.raises(ValueError, match=r"scene index -1 is negative; scenes are numbered from 0"):
        draw_scene(0, -1)


def test_an_image_too_small_for_its_shapes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"at 16 px a side the shapes look alike; draw scenes of 32 px or more"):
        write_drawn(tmp_path / "drawn", num_train=1, num_val=1, seed=0, size_px=16)
    assert not (tmp_path / "drawn").exists()


def test_an_image_id_below_one_is_refused():
    with pytest.raises(ValueError, match=r"image id 0 names no scene; ids of drawn images count from 1"):
        scene_of(0, seed=0)
