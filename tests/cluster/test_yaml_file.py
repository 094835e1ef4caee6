import pytest

from cluster.yaml_file import read_mapping, shown
from tests.support.case_table import each_case

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "run.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "with its aliases written out, it is longer than 131,072 characters"),
        (MERGE_BOMB, "with its aliases written out, it is longer than 131,072 characters"),
        ("a: &a [*a]", "a is nested more than 20 levels deep"),
        ("a: " + "[" * 25 + "]" * 25, "a is nested more than 20 levels deep"),
        ("[" * 1000, "it is nested too deep"),
        ("a: {b: {c: 1, c: 2}}", "key a.b.c stands twice"),
        ("optimizer: {}\ntraining: {}\noptimizer: {}\n", "key optimizer stands twice"),
        ("a: 2026-13-45", "month must be in"),
        ("b: 1\na: 010", "the number 010 in line 2 begins with 0; leave out the 0"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("b: 1\na: " + "9" * 30, "the number in line 2 is too large"),
        ("a: 0x" + "f" * 100_000, "the number in line 1 is too large"),
        ("a: !!timestamp soon", "NoneType"),
        ("a: !!bool soon", "soon"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("a:\n\tb: 1", "found character"),
        ("a: 1".encode("utf-16"), "can't decode byte"),
    ],
)
def test_a_file_out_of_bounds_is_named_in_one_short_line(file, content, reason):
    path = file(content)
    with pytest.raises(ValueError, match=rf"^--config {path} is not valid YAML \(.*{reason}.*\); fix it$") as told:
        read_mapping(path, f"--config {path}", contents="write some")
    assert len(f"{told.value}") < 800


@each_case(
    ("text", "value"),
    [
        ("1:4", "1:4"),
        ("1:30.5", "1:30.5"),
        ("0", 0),
        ("-7", -7),
        ("0x1f", 31),
        ("1_000", 1000),
        ("0.5", 0.5),
        (".5", 0.5),
    ],
)
def test_numbers_are_what_they_look_like(file, text, value):
    assert read_mapping(file(f"a: {text}"), "x") == {"a": value}


def test_a_file_that_is_too_large_is_not_parsed(file):
    with pytest.raises(ValueError, match=r"^x is larger than 128 KiB, too large for a file of settings; check"):
        read_mapping(file("a" * 2**18), "x")


@pytest.mark.parametrize("content", ["", "# nothing", "{}", "- a", "text"])
def test_a_file_without_settings_gets_advice(file, content):
    with pytest.raises(ValueError, match=r"^x contains no settings; write some$"):
        read_mapping(file(content), "x", contents="write some")


def test_a_file_may_be_empty(file):
    assert (read_mapping(file(""), "x"), read_mapping(file("{}"), "x")) == ({}, {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^x does not exist; check its name"):
        read_mapping(tmp_path / "none", "x")


def test_aliases_and_merged_keys_are_read(file):
    path = file("\ufeffa: &a {x: 1}\nb: {<<: *a, y: 2, z: *a}\n")
    assert read_mapping(path, "x") == {"a": {"x": 1}, "b": {"x": 1, "y": 2, "z": {"x": 1}}}


def test_a_value_of_a_message_is_cut():
    assert (shown("a"), shown([1] * 1000)) == ("'a'", f"[{'1, ' * 66}1... (3,000 characters)")


def test_a_folder_is_told(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"^--config x is a folder; name a file in it$"):
        read_mapping(tmp_path, "--config x")
