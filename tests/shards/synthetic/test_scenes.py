import pytest
from PIL import Image
from pycocotools.coco import COCO

from shards.synthetic.grammar import Scene, SceneObject, describe
from shards.synthetic.scenes import draw_scene, render, scene_of, write_scenes

SCENES = [draw_scene(3, index) for index in range(400)]


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


def test_objects_stay_inside_the_image_and_apart():
    for scene in SCENES:
        for place, one in enumerate(scene.objects):
            assert all(one.radius_px <= centre <= scene.size_px - one.radius_px for centre in one.centre_px)
            for other in scene.objects[:place]:
                gap = max(abs(a - b) for a, b in zip(one.centre_px, other.centre_px, strict=True))
                assert gap > one.radius_px + other.radius_px


def test_shapes_are_painted_where_the_scene_says():
    circle = SceneObject(shape="circle", colour="red", size="small", centre_px=(25, 48), radius_px=10.0)
    ring = SceneObject(shape="ring", colour="blue", size="large", centre_px=(70, 50), radius_px=10.0)
    image = render(Scene(size_px=96, background=(240, 240, 240), objects=(circle, ring), wording=0))
    assert image.size == (96, 96)
    on_the_ring = round(70 + 0.75 * ring.radius_px), 50
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
        write_scenes(tmp_path / name, num_train=6, num_val=2, seed=9, num_unseen=2)
    first = files(tmp_path / "one")
    assert first == files(tmp_path / "two")
    write_scenes(tmp_path / "one", num_train=6, num_val=2, seed=9, num_unseen=2)
    assert first == files(tmp_path / "one")


def test_a_killed_run_leaves_no_annotations_and_can_be_repeated(tmp_path, monkeypatch):
    write_scenes(tmp_path / "whole", num_train=4, num_val=2, seed=9)
    write_scenes(tmp_path / "torn", num_train=4, num_val=2, seed=8)
    with monkeypatch.context() as patch:
        patch.setattr("shards.synthetic.scenes.render", lambda scene: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_scenes(tmp_path / "torn", num_train=4, num_val=2, seed=9)
    assert not list((tmp_path / "torn" / "annotations").iterdir())
    write_scenes(tmp_path / "torn", num_train=4, num_val=2, seed=9)
    assert files(tmp_path / "torn") == files(tmp_path / "whole")


def test_coco_reads_what_was_written(tmp_path, capsys):
    write_scenes(tmp_path, num_train=6, num_val=3, seed=9, size_px=64, num_unseen=2)
    coco = load(tmp_path, "val", capsys)
    assert sorted(coco.imgs) == [7, 8, 9]
    picture = coco.imgs[8]
    assert picture == {"id": 8, "file_name": "000000000008.jpg", "width": 64, "height": 64}
    with Image.open(tmp_path / "images" / picture["file_name"]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")


def test_annotations_lead_back_to_the_scene(tmp_path, capsys):
    write_scenes(tmp_path, num_train=6, num_val=3, seed=9, size_px=64)
    coco = load(tmp_path, "val", capsys)
    for image_id in coco.imgs:
        captions = tuple(annotation["caption"] for annotation in coco.imgToAnns[image_id])
        assert captions == describe(scene_of(image_id, seed=9, size_px=64))


def test_splits_share_no_image_and_no_id(tmp_path, capsys):
    write_scenes(tmp_path, num_train=6, num_val=3, seed=9, num_unseen=2)
    splits = [load(tmp_path, split, capsys) for split in ("train", "val", "unseen")]
    assert sum(len(coco.imgs) for coco in splits) == len({image_id for coco in splits for image_id in coco.imgs}) == 11
    assert len({number for coco in splits for number in coco.anns}) == 55
    assert len({path.read_bytes() for path in (tmp_path / "images").iterdir()}) == 11


def test_a_split_of_no_images_is_not_written(tmp_path):
    write_scenes(tmp_path, num_train=1, num_val=1, seed=9, num_unseen=1)
    write_scenes(tmp_path, num_train=1, num_val=0, seed=9)
    assert [path.name for path in (tmp_path / "annotations").iterdir()] == ["captions_train.json"]


@pytest.mark.parametrize(("train", "val", "unseen"), [(0, 1, 0), (1, -1, 0), (1, 1, -2)])
def test_impossible_counts_are_refused(tmp_path, train, val, unseen):
    with pytest.raises(ValueError, match=rf"'train': {train}, 'val': {val}, 'unseen': {unseen}.*train needs 1 or more"):
        write_scenes(tmp_path, num_train=train, num_val=val, seed=0, num_unseen=unseen)
    assert not list(tmp_path.iterdir())


def test_a_negative_index_is_refused():
    with pytest.raises(ValueError, match=r"scene index -1 is negative; scenes are numbered from 0"):
        draw_scene(0, -1)


def test_an_image_too_small_for_its_shapes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"scenes of 16 px are too small to tell shapes apart; use 32 px or more"):
        write_scenes(tmp_path / "drawn", num_train=1, num_val=1, seed=0, size_px=16)
    assert not (tmp_path / "drawn").exists()


def test_an_image_id_below_one_is_refused():
    with pytest.raises(ValueError, match=r"image id 0 has no scene; ids of synthetic scenes start at 1"):
        scene_of(0, seed=0)
