"""Checks of the form of annotation entries."""

import pytest

from shards.sources.annotations import fault_of

FORM = {"id": int, "file_name": str}


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"id": 1, "file_name": "a.jpg", "width": 3}, ""),
        (3, "is 3, not an object"),
        ({"file_name": "a.jpg"}, "has no id"),
        ({"id": True, "file_name": "a.jpg"}, "has id true, which is not an integer"),
        ({"id": 1.5, "file_name": "a.jpg"}, "has id 1.5, which is not an integer"),
        ({"id": 1.0, "file_name": "a.jpg"}, 'has id 1.0, which is not an integer (write 1, without quotes or ".0")'),
        ({"id": "01", "file_name": "a.jpg"}, 'has id "01", which is not an integer (write 1, without quotes or ".0")'),
        ({"id": "2.0", "file_name": 1}, 'has id "2.0", which is not an integer (write 2, without quotes or ".0")'),
        ({"id": "dog", "file_name": "a.jpg"}, 'has id "dog", which is not an integer'),
        ({"id": 1, "file_name": 1.0}, "has file_name 1.0, which is not a string"),
        ({"id": 1, "file_name": ["a"]}, 'has file_name ["a"], which is not a string'),
        ({"id": 1, "file_name": "\ud800"}, 'has file_name "\\ud800", which contains half of a surrogate pair'),
        ("a" * 99, f'is "{"a" * 59}..., not an object'),
    ],
)
def test_the_first_fault_of_an_entry_is_told(entry, fault):
    assert fault_of(entry, FORM) == fault
