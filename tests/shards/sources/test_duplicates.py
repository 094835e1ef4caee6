"""Images of equal content are found whatever their names."""

import pytest

from shards.file_part import FilePart
from shards.samples import CaptionedImage
from shards.sources.duplicates import find_duplicates


def image(folder, name, content):
    (folder / name).write_bytes(content)
    return CaptionedImage(image_id=name, path=folder / name, captions=("A.",))


def test_equal_bytes_are_found_within_and_across_splits(tmp_path):
    long = bytes(range(256)) * 64
    altered = long[:-1] + b"!"  # equal in size and in the middle
    splits = {
        "train": [image(tmp_path, "a", long), image(tmp_path, "b", b"x"), image(tmp_path, "c", b"x")],
        "val": [image(tmp_path, "d", long), image(tmp_path, "e", altered), image(tmp_path, "f", b"y")],
    }
    found = {str(one): one.is_across_splits for one in find_duplicates(splits)}
    assert found == {"a (train) = d (val)": True, "b (train) = c (train)": False}


def test_equal_bytes_are_found_whatever_is_compared_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("shards.sources.duplicates._BATCH_SIZE", 2)
    splits = {"train": [image(tmp_path, str(n), b"%d" % (n % 4)) for n in range(7)]}
    (tmp_path / "whole").write_bytes(b"__2__")
    splits["val"] = [CaptionedImage(image_id="part", path=FilePart("part", tmp_path / "whole", 2, 1), captions=("A.",))]
    assert [str(one) for one in find_duplicates(splits)] == [
        "0 (train) = 4 (train)",
        "1 (train) = 5 (train)",
        "2 (train) = part (val) = 6 (train)",
    ]


def test_an_image_that_vanished_is_named(tmp_path):
    gone = CaptionedImage(image_id=7, path=tmp_path / "gone.jpg", captions=("A.",))
    with pytest.raises(ValueError, match=r"gone\.jpg \(image 7\) cannot be read"):
        find_duplicates({"train": [gone]})


def test_many_equal_images_are_named_by_the_first_of_each_split(tmp_path):
    splits = {"train": [image(tmp_path, f"t{n}", b"x") for n in range(9)], "val": [image(tmp_path, "v", b"x")]}
    assert [str(one) for one in find_duplicates(splits)] == ["t0 (train) = v (val) = t1 (train) and 7 more"]
