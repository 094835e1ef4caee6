"""The checks that all readers of sources share."""

import pytest

from shards.samples import SetAside
from shards.sources.rows import Row, accept, require_folder, require_splits, unrepeated, usable
from tests.support.pictures import write_coco


def test_usable_images_exist_and_have_captions_on_one_line(tmp_path):
    write_coco(tmp_path, num_images=1)
    rows = [
        Row(1, ("000000000001.jpg",), [" A\tdog \n runs. "]),
        Row(2, ("none.jpg",), ["A dog."]),
        Row(3, ("000000000001.jpg",), []),
    ]
    set_aside: list[SetAside] = []
    (image,) = usable(rows, [tmp_path / "images"], set_aside)
    assert image.captions == ("A dog runs.",)
    assert [one.key for one in set_aside] == ["000000000002", "000000000003"]


def test_images_of_one_id_are_all_set_aside():
    set_aside: list[SetAside] = []
    images = [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}, {"id": 2, "file_name": "c"}]
    assert unrepeated(images, set_aside) == [{"id": 2, "file_name": "c"}]
    assert [one.reason for one in set_aside] == ["image id 1 is used by 2 images: a, b"]


def test_an_entry_that_is_there_again_word_for_word_counts_once():
    set_aside = []
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2, 2, 3, 2)]
    assert unrepeated(images, set_aside) == [images[0], images[1], images[3]]
    assert set_aside == []


def test_an_entry_again_beside_another_one_of_its_id_saves_neither():
    set_aside = []
    images = [{"id": 1, "file_name": name} for name in ("a", "a", "b")]
    assert unrepeated(images, set_aside) == []
    assert [one.reason for one in set_aside] == ["image id 1 is used by 2 images: a, b"]


def test_a_fault_ends_the_reading_unless_it_is_set_aside(tmp_path):
    set_aside = [SetAside(key="1", reason="image 1 has no caption")]
    with pytest.raises(ValueError, match="file: image 1 has no caption; fix the source"):
        accept((), "file", set_aside, skip_bad=False)
    with pytest.raises(ValueError, match="file has no usable image"):
        accept((), "file", set_aside, skip_bad=True)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        require_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="has no split val; choose from test, train"):
        require_splits(tmp_path, ["train", "test"], ["val", "test"])
