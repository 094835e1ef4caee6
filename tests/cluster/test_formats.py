import json
from dataclasses import dataclass

import pytest

from cluster.errors import Refusal
from cluster.formats import read_record, require_format
from tests.support.case_table import each_case


@dataclass(frozen=True)
class Record:
    name: str
    format_version: int = 2


def read(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_record(Record, path, newest=2, remedy="make another")


@each_case("found", [None, 1, 2])
def test_a_version_of_this_release_or_before_is_read(found):
    require_format(found, newest=2, what="the run")


@each_case(
    ("found", "message"),
    [
        (3, "the run has format version 3, this release reads 1 to 2; use the release that wrote it, or a newer one"),
        (0, "the run has format version 0, this release reads 1 to 2; use the release"),
        ("x", "the run has format version x, this release reads 1 to 2; restore it from a copy"),
        (True, "the run has format version True"),
    ],
)
def test_another_version_is_refused_by_its_number(found, message):
    with pytest.raises(Refusal, match=message):
        require_format(found, newest=2, what="the run")


def test_a_record_is_what_was_written(tmp_path):
    assert read(tmp_path / "r.json", {"name": "a", "format_version": 2}) == Record("a")


def test_a_record_without_a_version_has_the_first_one(tmp_path):
    assert read(tmp_path / "r.json", {"name": "a"}) == Record("a", format_version=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "a", "format_version": 3, "more": {}}, "r.json has format version 3, this release reads 1 to 2"),
        ({"name": 5}, r"r.json is damaged \(name: .*\); make another"),
        ("[]", r"r.json is damaged \(.*\); make another"),
        ("{", r"r.json is damaged \(.*\); make another"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused(tmp_path, content, message):
    with pytest.raises(Refusal, match=message):
        read(tmp_path / "r.json", content)
