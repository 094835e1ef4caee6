"""How many images may be set aside."""

import json

import pytest

from shards.samples import SetAside
from shards.sources.rejected import REJECTED_NAME, list_rejected, refuse_many
from shards.storage.folders import has_file, open_folder, read_file
from tests.support.case_table import each_case


def some(count):
    return [SetAside(key=f"{number}", reason=f"{number}.jpg: it is empty") for number in range(count)]


@each_case(("count", "num_images", "share"), [(0, 5, 0.0), (1, 5, 0.0), (2, 200, 0.01), (5, 5, 1.0)])
def test_a_few_may_be_set_aside(count, num_images, share):
    refuse_many(some(count), num_images, share=share)


def test_more_are_refused_and_the_first_ten_named():
    with pytest.raises(ValueError, match=r"^12 images or captions of 200 images are faulty, more than the 2 ") as fault:
        refuse_many(some(12), 200, share=0.01)
    assert ("0.jpg: it is empty; 1.jpg" in str(fault.value), "9.jpg: it is empty; and 2 more" in str(fault.value)) == (
        True,
        True,
    )


@pytest.mark.parametrize("place", ["folder", "memory://rejected"])
def test_each_is_a_line_while_there_are_any(tmp_path, place):
    folder = open_folder(place if "://" in place else tmp_path)
    list_rejected([*some(1), SetAside(key="ü", reason="x")], folder)
    assert [json.loads(line) for line in read_file(folder, REJECTED_NAME).splitlines()] == [
        {"key": "0", "reason": "0.jpg: it is empty"},
        {"key": "ü", "reason": "x"},
    ]
    list_rejected([], folder)
    assert not has_file(folder, REJECTED_NAME)
