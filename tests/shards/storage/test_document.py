"""A manifest is read if its format version is known, and is refused otherwise."""

import json

import pytest

from shards.storage.document import Document


def document_of(folder, version):
    (folder / "set.json").write_text(json.dumps({"format_version": version, "names": ["a"]}))
    return Document(folder, "set.json", what="shard set", job="convert")


@pytest.mark.parametrize("version", [2, 3])
def test_every_version_from_the_oldest_to_the_newest_is_read(tmp_path, version):
    assert document_of(tmp_path, version).read(oldest=2, newest=3) == {"format_version": version, "names": ["a"]}


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (4, "upgrade captioning, or delete .*set.json and run captioning convert again"),
        (1, "delete .*set.json and run captioning convert again"),
        ("3", "delete"),
        (None, "delete"),
    ],
)
def test_another_version_is_refused_with_what_is_read_and_a_remedy(tmp_path, version, remedy):
    with pytest.raises(ValueError, match=rf"has format version {version}, this release reads 2 to 3; {remedy}"):
        document_of(tmp_path, version).read(oldest=2, newest=3)


def test_content_of_another_form_is_named_by_where_it_differs(tmp_path):
    document = document_of(tmp_path, 1)
    with pytest.raises(ValueError, match=r"set.json is damaged \(names\.0: .*\); delete .* and run captioning convert"):
        document.parse(dict[str, list[int]], {"names": ["a"]})


def test_a_name_that_leads_elsewhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"set.json names the shard \.\./a, which is not beside it; delete"):
        document_of(tmp_path, 1).refuse_outside(["b", "../a"])
