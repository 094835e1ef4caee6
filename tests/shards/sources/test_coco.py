"""COCO annotation files in every layout."""

import json
import time
from collections import Counter

import pytest

from shards.sources.coco import read_coco
from shards.storage.files import sha256_of
from tests.support.pictures import write_annotations, write_coco


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
    content = write_coco(tmp_path, num_images=1, num_captions=1)
    content["annotations"][0]["caption"] = " A\tdog \n runs. "
    write_annotations(tmp_path, content)
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
    # If there are categories, pycocotools needs a category for every annotation; it also needs an id.
    content = write_coco(tmp_path)
    expected = read_coco(tmp_path).splits
    for annotation in content["annotations"]:
        del annotation["id"]
    write_annotations(tmp_path, {**content, "categories": [{"id": 1, "name": "dog"}], "info": None, "licenses": 3})
    assert read_coco(tmp_path).splits == expected


def test_the_licences_that_a_file_names_are_kept(tmp_path):
    content = write_coco(tmp_path)
    assert read_coco(tmp_path).licenses == ()
    by, unnamed = {"id": 4, "name": "Attribution\nLicense", "url": "http://h/by/2.0/"}, {"id": 3, "url": "http://h"}
    listed = [by, {"id": 7, "name": "No known restrictions"}, by, unnamed, 3, {"name": "\ud800"}, {"name": "n" * 300}]
    write_annotations(tmp_path, {**content, "licenses": listed})
    expected = ("Attribution License (http://h/by/2.0/)", "No known restrictions", "n" * 200)
    assert read_coco(tmp_path).licenses == expected


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder; give the folder that holds the images"):
        read_coco(tmp_path / "nowhere")


def test_a_folder_without_annotations_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no captions_<split>.json; give a folder in COCO layout"):
        read_coco(tmp_path)


def test_a_missing_split_is_named(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no split test, val2017; choose from train$"):
        read_coco(tmp_path, ["test", "train", "val2017"])


def test_two_years_of_a_split_are_refused(tmp_path):
    write_coco(tmp_path, year="2014")
    write_coco(tmp_path, year="2017")
    with pytest.raises(
        ValueError, match=r"captions_train2017.json and captions_train2014.json are both for split train"
    ):
        read_coco(tmp_path)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "annotations" / "captions_train.json").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"captions_train.json is not a file; give the path of a COCO captions"):
        read_coco(tmp_path)


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


def test_real_photographs_are_found(shared_data):
    splits = read_coco(shared_data / "coco-mini").splits
    assert {split: len(images) for split, images in splits.items()} == {"train": 298, "val": 65}
    assert Counter(len(one.captions) for images in splits.values() for one in images) == {5: 362, 6: 1}
