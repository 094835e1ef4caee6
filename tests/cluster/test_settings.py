from dataclasses import dataclass
from pathlib import Path

from cluster.settings import as_plain, differences, flattened, is_name, parse_range
from tests.support.case_table import each_case


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)
    folder: Path = Path("/a")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    by_step: dict


def test_nested_dataclasses_become_what_json_holds():
    settings = Outer(Inner(), {1: Inner((), Path("b")), "none": None})
    assert as_plain(settings) == {
        "inner": {"sizes": [1, 2], "folder": "/a"},
        "by_step": {"1": {"sizes": [], "folder": "b"}, "none": None},
    }


def test_a_class_is_no_settings():
    assert as_plain(Inner) is Inner


def test_nested_settings_are_named_by_points():
    assert flattened({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}


def test_settings_that_differ_are_listed_by_name():
    before, now = {"b": 1, "a": 1, "same": 0, "gone": 2}, {"b": 2, "a": None, "same": 0, "new": 3}
    assert differences(before, now) == ["a 1 -> None", "b 1 -> 2", "gone 2 -> (absent)", "new (absent) -> 3"]


def test_a_setting_that_is_none_is_not_absent():
    assert differences({"a": None}, {}) == ["a None -> (absent)"]


@each_case(
    ("text", "bounds"),
    [
        ("3", (3, 3)),
        ("1:4", (1, 4)),
        ("0", (0, 0)),
        ("4:1", None),
        ("-1", None),
        ("1:", None),
        ("many", None),
        ("", None),
    ],
)
def test_a_range_is_a_number_or_bounds(text, bounds):
    assert parse_range(text) == bounds


@each_case(
    ("text", "expected"),
    [("big-1.2_x", True), ("9", True), ("", False), (".hidden", False), ("a/b", False), ("a b", False), ("..", False)],
)
def test_a_name_can_be_a_folders(text, expected):
    assert is_name(text) is expected
