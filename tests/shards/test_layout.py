"""Where the captions of a sample are, and how it is read as if ``convert`` had written it."""

import json

import pytest

from shards.layout import TarSource, captions_in, description_of, is_sample, split_name
from tests.support.case_table import each_case


@each_case(
    ("name", "found"),
    [
        ("a.jpg", ("a", "jpg")),
        ("a/b.c/d.JPG", ("a/b.c/d", "jpg")),
        ("a.seg.png", ("a", "seg.png")),  # as webdataset: the key ends at the first dot of the file's name
        ("./a.txt", ("./a", "txt")),
        ("README", None),
        (".hidden", None),
        ("a/._b.jpg", None),
        ("ü.jpg", ("ü", "jpg")),
        ("\udcff.jpg", None),  # a name that is not UTF-8, as tarfile returns it
    ],
)
def test_names_are_split_as_webdataset_does(name, found):
    assert split_name(name) == found


@each_case(
    ("suffixes", "captions", "is_one"),
    [
        (["jpg", "txt"], "txt", True),
        (["webp", "json"], "json.caption", True),
        (["jpg", "json"], "txt", False),
        (["txt", "json"], "txt", False),
        (["v1.jpg", "txt"], "txt", False),
    ],
)
def test_a_sample_has_an_image_and_captions(suffixes, captions, is_one):
    assert is_sample(suffixes, captions) == is_one


@each_case(
    ("content", "captions", "found"),
    [
        (b"\xef\xbb\xbfA  dog.\r\n\r\n Two\tcats. \n", "txt", ("A dog.", "Two cats.")),
        (b'{"caption": "A dog."}', "json.caption", ("A dog.",)),
        (b'{"texts": ["A dog.", "", "A cat."]}', "json.texts", ("A dog.", "A cat.")),
        (b'{"image_id": 3, "captions": ["A dog."]}', "json", ("A dog.",)),
        (json.dumps({"caption": ["\ud800", "A dog."]}).encode(), "json.caption", ("A dog.",)),
    ],
)
def test_captions_are_read_where_they_are(content, captions, found):
    assert captions_in(content, captions) == found


@each_case(
    ("content", "captions", "fault"),
    [
        (b"", "txt", "its txt has no caption$"),
        (b"\xff\xfe", "txt", "its txt is not UTF-8"),
        (b"x" * 5001, "txt", "its txt has no caption of at most 5000 characters"),
        (b'{"caption": null}', "json.caption", "its json has no caption$"),
        (b'{"caption": 3}', "json.caption", "its json has a caption that is neither a text nor a list of texts"),
        (b'{"caption": [""]}', "json.caption", "its json has no caption$"),
        (b"[1]", "json.caption", "its json is not an object"),
        (b"[" * 100_000, "json.caption", "its json is not JSON"),
        (b"{", "json.caption", "its json is not JSON"),
    ],
)
def test_unusable_captions_are_told(content, captions, fault):
    with pytest.raises(ValueError, match=fault):
        captions_in(content, captions)


def test_a_sample_gets_its_key_as_id_and_keeps_its_other_fields():
    source = TarSource(location="0.tar", captions="json.caption", id_prefix="0/")
    files = {"json": b'{"caption": "A dog.", "width": 4, "height": 3, "url": "u"}'}
    assert json.loads(description_of("k", files, source)) == {
        "image_id": "0/k",
        "captions": ["A dog."],
        "width": 4,
        "height": 3,
        "columns": {"width": 4, "height": 3, "url": "u"},
    }


def test_a_damaged_json_beside_a_text_costs_only_the_columns():
    found = description_of("k", {"txt": b"A dog.", "json": b"{"}, TarSource(location="0.tar", captions="txt"))
    assert json.loads(found) == {"image_id": "k", "captions": ["A dog."]}
