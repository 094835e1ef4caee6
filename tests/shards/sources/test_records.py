"""Tables of every kind, and those that are damaged."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from shards.sources.records import open_table, read_text


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'image,caption\na.jpg,"A dog, wet."\n'),
        ("a.csv", '\ufeffimage;caption\r\na.jpg;"A dog, wet."\r\n'),
        ("a.csv", "image| caption\na.jpg| A dog, wet.\n\n"),
        ("a.tsv", "image\tcaption\na.jpg\tA dog, wet.\n"),
        ("captions.txt", 'image,caption\ra.jpg,"A dog, wet."'),
        ("a.jsonl", json.dumps({"image": "a.jpg", "caption": "A dog, wet."}) + "\n\n"),
    ],
)
def test_texts_are_read_whatever_parts_them(tmp_path, name, content):
    table = open_table(write(tmp_path, name, content))
    assert table.columns == ("image", "caption")
    assert [(one.values, one.fault) for one in table.records] == [({"image": "a.jpg", "caption": "A dog, wet."}, "")]


def test_parquet_is_read(tmp_path):
    pa.parquet.write_table(pa.table({"image": ["a.jpg"], "captions": [["A.", "B."]]}), tmp_path / "a.parquet")
    table = open_table(tmp_path / "a.parquet")
    assert [one.values for one in table.records] == [{"image": "a.jpg", "captions": ["A.", "B."]}]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", "", "has no header"),
        ("a.csv", 'image,caption\na.jpg,"A dog\n', "line 2, is not a row of a table"),
        ("a.csv", b"image,caption\n\na.jpg,\xe9t\xe9\n", "not UTF-8 in line 3"),
        ("a.csv", "image,caption\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.parquet", b"PAR1", "is not Parquet"),
    ],
)
def test_a_damaged_table_is_refused_by_name(tmp_path, name, content, fault):
    with pytest.raises(ValueError, match=f"{name}.*{fault}"):
        list(open_table(write(tmp_path, name, content)).records)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.csv is not a file; give a table"):
        open_table(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", "image,caption\na.jpg,A dog, wet.\n", "line 2 has 3 columns, the header 2"),
        ("a.jsonl", '{"image": "a.jpg"}\n{"image"\n', "line 2 is not JSON"),
        ("a.jsonl", '{"image": "a.jpg"}\n[1]\n', "line 2 is not an object"),
    ],
)
def test_a_faulty_row_is_told_with_its_place(tmp_path, name, content, fault):
    *_, last = open_table(write(tmp_path, name, content)).records
    assert fault in f"{last.place} {last.fault}"


def test_line_ends_of_every_system_are_line_feeds(tmp_path):
    assert read_text(write(tmp_path, "a.txt", b"\xef\xbb\xbfa\r\nb\rc\n")) == "a\nb\nc\n"
