"""Names of splits, and images dealt to splits by their ids."""

import pytest

from shards.samples import CaptionedImage
from shards.sources.splits import deal, is_split, parse_ratio, usual_split
from tests.support.case_table import each_case


def some(ids):
    return [CaptionedImage(image_id=image_id, path=None, captions=("A.",)) for image_id in ids]


@each_case(
    ("name", "usual"),
    [
        ("Training", "train"),
        ("restval", "train"),
        ("validation", "val"),
        ("dev", "val"),
        ("eval", "test"),
        ("my", "my"),
    ],
)
def test_splits_get_their_usual_names(name, usual):
    assert usual_split(f" {name} ") == usual


def test_folders_of_other_names_are_no_splits():
    assert [is_split(name) for name in ("Train", "validation", "images")] == [True, True, False]


def test_an_image_keeps_its_split_whatever_else_is_there():
    shares = parse_ratio("90:5:5")
    few, many = (
        {split: {one.image_id for one in images} for split, images in deal(some(range(count)), shares).items()}
        for count in (300, 3000)
    )
    assert all(few[split] <= many[split] for split in few)
    assert {split: round(len(ids) / 3000, 2) for split, ids in many.items()} == {
        "train": 0.9,
        "val": 0.05,
        "test": 0.05,
    }


def test_two_numbers_leave_no_test_split():
    assert list(deal(some(range(100)), parse_ratio("8:2"))) == ["train", "val"]


@each_case("text", ["", "90", "90:5:5:1", "a:b", "90:-5", "90:0", "inf:1", "nan:1"])
def test_a_ratio_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match="give two or three numbers, such as 90:5:5"):
        parse_ratio(text)
