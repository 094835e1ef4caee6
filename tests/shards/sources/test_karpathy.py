"""Karpathy's split files, valid and faulty."""

import json

import pytest

from shards.sources.karpathy import read_karpathy
from shards.storage.files import sha256_of

SKIP_HINT = r"; fix the source, or set them aside with --on-bad skip$"


def keys(images):
    return [int(one.key) for one in images]


def karpathy_image(number, split="train", **changes):
    sentences = [{"raw": f"Sentence {number}.", "tokens": ["sentence", str(number)]}]
    return {"imgid": number, "filename": f"{number}.jpg", "split": split, "sentences": sentences, **changes}


@pytest.fixture
def karpathy(tmp_path):
    """Return a function that writes a split file, and files at the given paths."""

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
    with pytest.raises(FileNotFoundError, match=r"dataset.json has no split val; choose from train$"):
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
    "id of text": ([karpathy_image(3, cocoid="3")], 'images[2] has cocoid "3", which is not an integer'),
    "split of null": ([karpathy_image(3, None)], "images[2] has split null, which is not a string"),
    "path of a number": ([karpathy_image(3, filepath=3)], "images[2] has filepath 3, which is not a string"),
    "sentences of text": ([karpathy_image(3, sentences="A")], 'images[2] has sentences "A", which is not a list'),
    "sentence of text": ([karpathy_image(3, sentences=["A"])], 'images[2] is "A", not an object'),
    "raw of null": ([karpathy_image(3, sentences=[{"raw": None}])], "images[2] has raw null, which is not a string"),
    "no object": ([3], "images[2] is 3, not an object"),
    "one id twice": ([karpathy_image(3), karpathy_image(3, "val")], "image id 3 is used by 2 images: 3.jpg, 3.jpg"),
    "no such file": ([karpathy_image(4)], "image 4 (4.jpg) is in none of"),
    "way out": ([karpathy_image(4, filepath="..")], "image 4 (../4.jpg) has a name that points outside its folder"),
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
