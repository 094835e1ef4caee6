"""Annotation files as people have them: whole, in three layouts, and faulty in every way that a file can be."""

import json
import time
from collections import Counter

import pytest
from pictures import write_annotations, write_coco

from shards.coco import read_coco, read_karpathy
from shards.files import sha256_of

SKIP_HINT = r"; mend the source, or set them aside with --on-bad skip$"


def image(number, **changes):
    return {"id": number, "file_name": f"{number:012d}.jpg", **changes}


def caption(number, text="A dog.", **changes):
    return {"id": number, "image_id": number, "caption": text, **changes}


def keys(images):
    return [int(one.key) for one in images]


@pytest.mark.parametrize(
    ("folder", "year"), [("images", ""), ("images", "2017"), ("train2017", "2017"), ("train2014", "2014")]
)
def test_every_layout_is_read(tmp_path, folder, year):
    write_coco(tmp_path, folder=folder, year=year)
    images = read_coco(tmp_path).splits["train"]
    assert [one.path for one in images] == [tmp_path / folder / f"{number:012d}.jpg" for number in (1, 2, 3)]


def test_captions_go_to_their_images_in_the_order_of_the_file(tmp_path):
    content = write_coco(tmp_path, num_images=2)
    content["annotations"].reverse()
    write_annotations(tmp_path, content)
    captions = [one.captions for one in read_coco(tmp_path).splits["train"]]
    assert captions == [("Caption 1 of 1.", "Caption 0 of 1."), ("Caption 1 of 2.", "Caption 0 of 2.")]


def test_images_come_by_id_whatever_the_order_of_the_file(tmp_path):
    content = write_coco(tmp_path)
    expected = read_coco(tmp_path).splits
    content["images"].reverse()
    write_annotations(tmp_path, content)
    assert read_coco(tmp_path).splits == expected


def test_annotation_files_come_with_their_checksums(tmp_path):
    write_coco(tmp_path)
    (file,) = (tmp_path / "annotations").iterdir()
    assert read_coco(tmp_path).files == {file.name: sha256_of(file)}


def test_spaces_and_line_ends_in_captions_become_single_spaces(tmp_path):
    write_coco(tmp_path, num_images=1)
    write_annotations(tmp_path, {"images": [image(1)], "annotations": [caption(1, " A\tdog \n runs. ")]})
    assert read_coco(tmp_path).splits["train"][0].captions == ("A dog runs.",)


def test_a_key_has_twelve_digits(tmp_path):
    write_coco(tmp_path, num_images=1)
    assert read_coco(tmp_path).splits["train"][0].key == "000000000001"


def test_nothing_is_printed(tmp_path, capsys):
    write_coco(tmp_path)
    read_coco(tmp_path)
    assert capsys.readouterr() == ("", "")


def test_wanted_splits_alone_are_read(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, "val", year="2017")
    write_annotations(tmp_path, "damaged", name="test2017")
    assert list(read_coco(tmp_path, ["val"]).splits) == ["val"]
    assert list(read_coco(tmp_path, ["val", "train"]).splits) == ["train", "val"]


@pytest.mark.parametrize(
    ("name", "split"),
    [("val2017", "val"), ("val", "val"), ("flickr30k", "flickr30k"), ("fold1", "fold1"), ("2017", "2017")],
)
def test_a_year_alone_is_no_part_of_the_name_of_a_split(tmp_path, name, split):
    write_coco(tmp_path, name)
    assert list(read_coco(tmp_path).splits) == [split]


def test_other_parts_of_coco_do_no_harm(tmp_path):
    # With categories pycocotools wants a category of every annotation; annotations without an id break it too.
    content = write_coco(tmp_path)
    expected = read_coco(tmp_path).splits
    for annotation in content["annotations"]:
        del annotation["id"]
    write_annotations(tmp_path, {**content, "categories": [{"id": 1, "name": "dog"}], "info": None, "licenses": 3})
    assert read_coco(tmp_path).splits == expected


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder; give the folder that holds the images"):
        read_coco(tmp_path / "nowhere")


def test_a_folder_without_annotations_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no captions_<split>.json; give a folder in COCO layout"):
        read_coco(tmp_path)


def test_a_missing_split_is_named(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no split test, val2017; use of train$"):
        read_coco(tmp_path, ["test", "train", "val2017"])


def test_two_years_of_a_split_are_refused(tmp_path):
    write_coco(tmp_path, year="2014")
    write_coco(tmp_path, year="2017")
    with pytest.raises(ValueError, match=r"captions_train2017.json and captions_train2014.json are both split train"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"is not JSON \(.*\); fetch it again"),
        ('{"images": [{"id": 1', r"is not JSON \(.*\); fetch it again"),
        ("[" * 200_000, r"is not JSON \(.*\); fetch it again"),
        ("9" * 5000, r"is not JSON \(.*\); fetch it again"),
        ([], "has no list images and no list annotations; use a COCO captions file"),
        ("null", "has no list images and no list annotations"),
        ({"annotations": []}, "has no list images; use a COCO captions file"),
        ({"images": []}, "has no list annotations"),
        ({"images": {}, "annotations": 3}, "has no list images and no list annotations"),
        ({"images": [], "annotations": []}, "has no usable image; give a file with at least one"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_that_is_no_annotation_file_is_refused(tmp_path, content, message, skip_bad):
    write_annotations(tmp_path, content)
    with pytest.raises(ValueError, match=rf"captions_train.json {message}") as refusal:
        read_coco(tmp_path, skip_bad=skip_bad)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "annotations" / "captions_train.json").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"captions_train.json is not a file; give the path of a COCO captions"):
        read_coco(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    write_annotations(tmp_path, "")
    (tmp_path / "annotations" / "captions_train.json").write_bytes(b'{"images": "\xff\xff"}')
    with pytest.raises(ValueError, match="is not JSON"):
        read_coco(tmp_path)


# What stands in the file beside the sound images 1 and 2 -> the key and the reason it is set aside with.
FAULTS = {
    "caption of a number": ([], [caption(1, 5)], "annotations[2]", "has caption 5, which is no text"),
    "caption of a list": ([], [caption(1, ["A dog."])], "annotations[2]", 'has caption ["A dog."], which is no text'),
    "null caption": ([], [caption(1, None)], "annotations[2]", "has caption null, which is no text"),
    "half a character": ([], [caption(1, "A \ud83d.")], "annotations[2]", r'has caption "A \ud83d.", which holds half'),
    "no caption": ([], [{"id": 9, "image_id": 1}], "annotations[2]", "has no caption"),
    "caption of no image": ([], [{"id": 9, "caption": "A."}], "annotations[2]", "has no image_id"),
    "caption of text 1": ([], [caption(1, image_id="1")], "annotations[2]", 'has image_id "1", which is no whole'),
    "no object": ([], [7], "annotations[2]", "is 7, not an object"),
    "null annotation": ([], [None], "annotations[2]", "is null, not an object"),
    "caption of image 9": ([], [caption(9)], "000000000009", "annotations[2] is of image 9, which images[] lacks"),
    "empty caption": ([], [caption(1, "")], "000000000001", "a caption of image 1 (000000000001.jpg) is empty"),
    "caption of spaces": ([], [caption(1, " \n\t ")], "000000000001", "is empty or only spaces"),
    "id of text": ([{"id": "3", "file_name": "a"}], [], "images[2]", 'has id "3", which is no whole number'),
    "id of a fraction": ([{"id": 3.0, "file_name": "a"}], [], "images[2]", "has id 3.0, which is no whole number"),
    "id of a truth": ([{"id": True, "file_name": "a"}], [], "images[2]", "has id true, which is no whole number"),
    "no id": ([{"file_name": "3.jpg"}], [], "images[2]", "has no id"),
    "no file name": ([{"id": 3}], [caption(3)], "images[2]", "has no file_name"),
    "null file name": ([image(3, file_name=None)], [caption(3)], "images[2]", "has file_name null, which is no text"),
    "image of text": (["3.jpg"], [], "images[2]", 'is "3.jpg", not an object'),
    "long nonsense": ([list(range(99))], [], "images[2]", "is [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,"),
    "no such file": ([image(4)], [caption(4)], "000000000004", "image 4 (000000000004.jpg) is in none of"),
    "empty file name": ([image(4, file_name="")], [caption(4)], "000000000004", "image 4 () is in none of"),
    "no captions": ([image(3)], [], "000000000003", "image 3 (000000000003.jpg) has no caption"),
    "way out": ([image(4, file_name="../secret.jpg")], [caption(4)], "000000000004", "points out of its folder"),
    "hidden way out": ([image(4, file_name="a/../../secret.jpg")], [caption(4)], "000000000004", "points out of its"),
    "absolute": ([image(4, file_name="/etc/passwd")], [caption(4)], "000000000004", "points out of its folder"),
    "one id twice": (
        [image(3), image(3, file_name="b")],
        [caption(3)],
        "000000000003",
        "image id 3 stands for 2 images",
    ),
}


@pytest.fixture
def faulty(tmp_path):
    def write(name):
        images, annotations, key, reason = FAULTS[name]
        write_coco(tmp_path)
        (tmp_path / "secret.jpg").write_bytes(b"outside")
        sound = [image(1), image(2)], [caption(1), caption(2)]
        write_annotations(tmp_path, {"images": sound[0] + images, "annotations": sound[1] + annotations})
        return tmp_path, key, reason

    return write


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_entry_refuses_the_source(faulty, name):
    source, _, reason = faulty(name)
    with pytest.raises(ValueError, match=rf"captions_train.json: .*{SKIP_HINT}") as refusal:
        read_coco(source)
    assert reason in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_entry_is_set_aside_and_the_rest_is_kept(faulty, name):
    source, key, reason = faulty(name)
    annotations = read_coco(source, skip_bad=True)
    assert [one.captions for one in annotations.splits["train"]] == [("A dog.",), ("A dog.",)]
    assert [(one.key, reason in one.reason) for one in annotations.set_aside] == [(key, True)]


def test_all_faults_are_counted(tmp_path):
    write_coco(tmp_path)
    content = {"images": [image(1), image(8), image(9)], "annotations": [caption(number) for number in (1, 7, 8, 9)]}
    write_annotations(tmp_path, content)
    with pytest.raises(ValueError, match=rf"of image 7, which images\[\] lacks \(and 2 more faults\){SKIP_HINT}"):
        read_coco(tmp_path)


def test_a_source_with_nothing_but_faults_is_refused(tmp_path):
    write_annotations(tmp_path, {"images": [image(1)], "annotations": [caption(1)]})
    with pytest.raises(ValueError, match=r"has no usable image \(image 1 .* is in none of .*\); give a file with"):
        read_coco(tmp_path, skip_bad=True)


def test_an_empty_split_is_noticed_beside_a_faulty_one(tmp_path):
    content = write_coco(tmp_path)
    write_annotations(tmp_path, {**content, "images": [*content["images"], image(9)]})
    write_annotations(tmp_path, {"images": [], "annotations": []}, name="val")
    with pytest.raises(ValueError, match=r"captions_val.json has no usable image"):
        read_coco(tmp_path, skip_bad=True)


def test_cocos_own_annotations_are_read_in_a_few_seconds(shared_data, tmp_path):
    (tmp_path / "annotations").symlink_to(shared_data / "annotations")
    (tmp_path / "images").mkdir()
    content = json.loads((shared_data / "annotations" / "captions_val2017.json").read_bytes())
    for one in content["images"][:100]:
        (tmp_path / "images" / one["file_name"]).touch()
    start = time.process_time()
    annotations = read_coco(tmp_path, skip_bad=True)
    assert time.process_time() - start < 5
    assert (len(annotations.splits["val"]), len(annotations.set_aside)) == (100, 4900)
    assert all(len(one.captions) in (5, 6, 7) for one in annotations.splits["val"])


def test_absent_photographs_are_counted(shared_data, tmp_path):
    (tmp_path / "annotations").symlink_to(shared_data / "annotations")
    with pytest.raises(ValueError, match=rf"image 139 .* is in none of .* \(and 4999 more faults\){SKIP_HINT}"):
        read_coco(tmp_path)


def test_real_photographs_are_found(shared_data):
    splits = read_coco(shared_data / "coco-mini").splits
    assert {split: len(images) for split, images in splits.items()} == {"train": 298, "val": 65}
    assert Counter(len(one.captions) for images in splits.values() for one in images) == {5: 362, 6: 1}


def karpathy_image(number, split="train", **changes):
    sentences = [{"raw": f"Sentence {number}.", "tokens": ["sentence", str(number)]}]
    return {"imgid": number, "filename": f"{number}.jpg", "split": split, "sentences": sentences, **changes}


@pytest.fixture
def karpathy(tmp_path):
    """Return a writer of a split file, which also puts files at the given places."""

    def write(images, *places):
        for place in places:
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).touch()
        text = images if isinstance(images, str) else json.dumps({"images": images, "dataset": "x"})
        (tmp_path / "dataset.json").write_text(text)
        return tmp_path, tmp_path / "dataset.json"

    return write


def test_a_split_file_comes_with_its_checksum(karpathy):
    source, file = karpathy([karpathy_image(1)], "1.jpg")
    assert read_karpathy(source, file).files == {file.name: sha256_of(file)}


@pytest.mark.parametrize("place", ["1.jpg", "images/1.jpg"])
def test_the_flickr_form_is_read(karpathy, place):
    source, file = karpathy([karpathy_image(1)], place)
    (found,) = read_karpathy(source, file).splits["train"]
    assert (found.image_id, found.path, found.captions) == (1, source / place, ("Sentence 1.",))


@pytest.mark.parametrize(
    "place",
    ["val2014/COCO_7.jpg", "images/val2014/COCO_7.jpg", "images/COCO_7.jpg", "COCO_7.jpg", "val2017/000000000007.jpg"],
)
def test_the_coco_form_is_read_from_every_layout(karpathy, place):
    coco = karpathy_image(1, filepath="val2014", filename="COCO_7.jpg", cocoid=7)
    source, file = karpathy([coco], place)
    assert [(one.key, one.path) for one in read_karpathy(source, file).splits["train"]] == [
        ("000000000007", source / place)
    ]


def test_restval_counts_as_training(karpathy):
    images = [karpathy_image(number, split) for number, split in enumerate(["restval", "val", "train", "test"])]
    source, file = karpathy(images, *(f"{number}.jpg" for number in range(4)))
    splits = read_karpathy(source, file).splits
    assert {split: keys(found) for split, found in splits.items()} == {"test": [3], "train": [0, 2], "val": [1]}


def test_wanted_splits_of_a_split_file_alone_are_read(karpathy):
    source, file = karpathy([karpathy_image(1), karpathy_image(2, "test")], "1.jpg")
    assert list(read_karpathy(source, file, ["train"]).splits) == ["train"]


def test_a_missing_split_of_a_split_file_is_named(karpathy):
    source, file = karpathy([karpathy_image(1)], "1.jpg")
    with pytest.raises(FileNotFoundError, match=r"dataset.json has no split val; use of train$"):
        read_karpathy(source, file, ["val"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "dataset.json is not JSON"),
        ("[]", "dataset.json has no list images; use a Karpathy split file"),
        ([], "dataset.json has no usable image; give a file with at least one"),
    ],
)
def test_a_file_that_is_no_split_file_is_refused(karpathy, content, message):
    with pytest.raises(ValueError, match=message):
        read_karpathy(*karpathy(content), skip_bad=True)


def test_a_missing_split_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.json is not a file; give the path of a Karpathy split file"):
        read_karpathy(tmp_path, tmp_path / "none.json")


def test_a_missing_folder_of_a_split_file_is_named(karpathy):
    source, file = karpathy([karpathy_image(1)], "1.jpg")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        read_karpathy(source / "nowhere", file)


KARPATHY_FAULTS = {
    "no file name": ([{"imgid": 3, "split": "train", "sentences": []}], "images[2] has no filename"),
    "no id": ([{"filename": "a", "split": "train", "sentences": []}], "images[2] has no imgid"),
    "id of text": ([karpathy_image(3, cocoid="3")], 'images[2] has cocoid "3", which is no whole number'),
    "split of null": ([karpathy_image(3, None)], "images[2] has split null, which is no text"),
    "path of a number": ([karpathy_image(3, filepath=3)], "images[2] has filepath 3, which is no text"),
    "sentences of text": ([karpathy_image(3, sentences="A")], 'images[2] has sentences "A", which is no list'),
    "sentence of text": ([karpathy_image(3, sentences=["A"])], 'images[2] is "A", not an object'),
    "raw of null": ([karpathy_image(3, sentences=[{"raw": None}])], "images[2] has raw null, which is no text"),
    "no object": ([3], "images[2] is 3, not an object"),
    "one id twice": ([karpathy_image(3), karpathy_image(3, "val")], "image id 3 stands for 2 images: 3.jpg, 3.jpg"),
    "no such file": ([karpathy_image(4)], "image 4 (4.jpg) is in none of"),
    "way out": ([karpathy_image(4, filepath="..")], "image 4 (../4.jpg) has a name that points out of its folder"),
    "no captions": ([karpathy_image(3, sentences=[])], "image 3 (3.jpg) has no caption"),
    "empty caption": ([karpathy_image(3, sentences=[{"raw": " "}])], "a caption of image 3 (3.jpg) is empty"),
}


@pytest.mark.parametrize("name", KARPATHY_FAULTS)
def test_a_faulty_image_refuses_the_split_file(karpathy, name):
    images, reason = KARPATHY_FAULTS[name]
    source, file = karpathy([karpathy_image(1), karpathy_image(2), *images], "1.jpg", "2.jpg", "3.jpg")
    with pytest.raises(ValueError, match=rf"dataset.json, split train: .*{SKIP_HINT}") as refusal:
        read_karpathy(source, file)
    assert reason in str(refusal.value)


@pytest.mark.parametrize("name", KARPATHY_FAULTS)
def test_a_faulty_image_is_set_aside_and_the_rest_is_kept(karpathy, name):
    images, reason = KARPATHY_FAULTS[name]
    source, file = karpathy([karpathy_image(1), karpathy_image(2), *images], "1.jpg", "2.jpg", "3.jpg")
    annotations = read_karpathy(source, file, skip_bad=True)
    assert keys(annotations.splits["train"]) == [1, 2]
    assert reason in annotations.set_aside[0].reason
