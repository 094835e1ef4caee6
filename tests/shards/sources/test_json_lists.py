"""Lists of a JSON file, read an entry at a time, as json.loads reads them whole."""

import json
import random

import pytest

from shards.sources import json_lists
from shards.sources.json_lists import read_lists

ENTRIES = [
    {"id": 12345, "text": 'é "\\ \ud83d \n [1, {'},
    -1.5e-3,
    "a" * 50,
    [],
    {},
    [1, [2, {"a": None}]],
    True,
    None,
    0,
]


def read(path, names=("first", "second")):
    return list(read_lists(path, names, form="a list of things"))


def write(folder, text, encoding="utf-8"):
    path = folder / "file.json"
    path.write_bytes(text.encode(encoding, "surrogatepass"))
    return path


@pytest.mark.parametrize("part", [1, 2, 3, 7, 64, 2**20])
@pytest.mark.parametrize("indent", [None, 3])
def test_entries_are_those_of_the_whole_wherever_a_part_ends(tmp_path, monkeypatch, part, indent):
    monkeypatch.setattr(json_lists, "_PART_CHARACTERS", part)
    content = {"info": {"a": [1]}, "other": ENTRIES, "second": ENTRIES[::-1], "n": 17, "first": ENTRIES, "last": []}
    path = write(tmp_path, json.dumps(content, indent=indent, ensure_ascii=False))
    expected = [(name, *one) for name in ("second", "first") for one in enumerate(content[name])]
    assert read(path) == expected


@pytest.mark.parametrize("number", [7.25, 1e-20, 1.5e20, -0.5e-5, 10])
def test_a_number_is_whole_wherever_a_part_ends(tmp_path, monkeypatch, number):
    path = write(tmp_path, json.dumps({"first": [number, number, {"a": number}], "second": []}))
    for part in range(1, 40):
        monkeypatch.setattr(json_lists, "_PART_CHARACTERS", part)
        assert read(path) == [("first", 0, number), ("first", 1, number), ("first", 2, {"a": number})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_encodings_are_told_apart_as_json_tells_them(tmp_path, encoding):
    path = write(tmp_path, '{"first": ["é"], "second": []}', encoding)
    assert read(path) == [("first", 0, "é")]


def test_what_json_refuses_is_refused_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lists, "_PART_CHARACTERS", 5)
    rng = random.Random(3)
    text = json.dumps({"info": {"a": 1.5e3}, "first": ENTRIES, "second": [True]})
    for _ in range(200):
        start = rng.randrange(len(text))
        changed = text[:start] + rng.choice(["", "", ",", "}", "]", '"', ":", "5", " ", "\\"]) + text[start + 1 :]
        try:
            json.loads(changed)
            is_json = True
        except ValueError:
            is_json = False
        try:
            read(write(tmp_path, changed))
            fault = ""
        except ValueError as error:
            fault = str(error)
        assert (" is not JSON (" in fault) is not is_json, (changed, fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"first": [],\n "second": [1,\n 2\n', r"is not JSON \(Expecting ',' delimiter: line 4, character 32\)"),
        ('{"first": [],\n\n "second": [tru]}', r"is not JSON \(Expecting value: line 3, character 27\)"),
        ('{"first": [{"a": "b]}', r"is not JSON \(Unterminated string starting at: line 1, character 17\)"),
        ('{"first": [], "first": [], "second": []}', "has 2 lists first; join them"),
        ('{"first": [], "second": {}}', "has no list second; use a list of things"),
        ("[[1], 2]", "has no list first and no list second; use"),
        ("7", "has no list first and no list second; use"),
        ('{"first": [' + "[" * 200_000, r"is not JSON \(maximum recursion"),
    ],
)
def test_a_fault_is_told_with_its_place_in_the_file(tmp_path, monkeypatch, text, fault):
    monkeypatch.setattr(json_lists, "_PART_CHARACTERS", 6)
    with pytest.raises(ValueError, match=rf"file\.json {fault}"):
        read(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none is not a file; give the path of a list of things"):
        read(tmp_path / "none")


def test_a_fault_is_found_without_reading_the_rest(tmp_path, monkeypatch):
    path = write(tmp_path, '{"first": [1 2' + ", 3" * 1_000_000)
    monkeypatch.setattr(json_lists, "_PART_CHARACTERS", 100)
    sizes = []
    extend = json_lists._Document._extend
    monkeypatch.setattr(json_lists._Document, "_extend", lambda text: (extend(text), sizes.append(len(text._text)))[0])
    with pytest.raises(ValueError, match="Expecting ',' delimiter"):
        read(path)
    assert sum(sizes) < 1000
