"""Tables of every kind, and those that are damaged."""

import errno
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
        ("A.TSV", "image\tcaption\na.jpg\tA dog, wet.\n"),
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
        ("a.csv", "", r"has no header \(it is empty\)"),
        ("a.csv", "image,caption,caption\n", "has 2 columns caption; rename or remove one"),
        ("a.csv", "image,caption\na.jpg,A.\n".encode("utf-16-le"), "holds a zero byte in line 1, as UTF-16 does"),
        ("a.jsonl", "[1]\n[2]\n", "line 1, is not an object; write an object a line"),
        ("a.csv", 'image,caption\na.jpg,"A dog\n', "line 2, is not a row of a table"),
        ("a.csv", b"image,caption\n\na.jpg,\xe9t\xe9\n", "not UTF-8 in line 3"),
        ("a.csv", "image,caption\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.parquet", b"PAR1", "is not Parquet"),
    ],
)
def test_a_damaged_table_is_refused_by_name(tmp_path, name, content, fault):
    with pytest.raises(ValueError, match=f"{name}.*{fault}"):
        list(open_table(write(tmp_path, name, content)).records)


def test_a_parquet_file_that_is_damaged_inside_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"image": ["a.jpg"] * 99}), path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet is damaged after row 0 \(.*\); write it again"):
        list(open_table(path).records)


@pytest.mark.parametrize("call", ["ParquetFile", "ParquetFile.iter_batches"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError(errno.EIO, "Input/output error"), OSError), (pa.ArrowMemoryError("malloc"), MemoryError)],
)
def test_a_fault_of_the_machine_is_not_one_of_a_parquet_file(tmp_path, monkeypatch, call, error, kind):
    pa.parquet.write_table(pa.table({"image": ["a.jpg"]}), tmp_path / "a.parquet")
    monkeypatch.setattr(f"pyarrow.parquet.{call}", lambda *_, **__: raising(error))
    with pytest.raises(kind) as raised:
        list(open_table(tmp_path / "a.parquet").records)
    assert raised.value is error
    assert kind is MemoryError or str(error) == f"[Errno 5] Input/output error: '{tmp_path / 'a.parquet'}'"


def raising(error):
    error.filename = None
    raise error


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    arrays = [pa.array([text]) for text in ("a.jpg", "A.", "B.")]
    table = pa.Table.from_arrays(arrays, names=["image", "caption", "caption"])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has 2 columns caption; rename or remove one"):
        open_table(tmp_path / "a.parquet")


def test_a_parquet_file_of_another_encoding_is_named(tmp_path):
    text = pa.array([b"\xe9t\xe9"], pa.binary()).view(pa.string())
    pa.parquet.write_table(pa.table({"caption": text}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet is damaged after row 0 \('utf-8' codec"):
        list(open_table(tmp_path / "a.parquet").records)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.csv is not a file; give a table"):
        open_table(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", "image,caption\na.jpg,A dog, wet.\n", "line 2 has 3 columns, the header 2"),
        ("a.jsonl", '{"image": "a.jpg"}\n{"image"\n', "line 2 is not JSON (Expecting ':' delimiter: character 8)"),
        ("a.jsonl", '{"image": "a.jpg", "x": ["\\ud83d"]}\n', "line 1 contains half of a surrogate pair"),
        ("a.jsonl", '{"image": "a.jpg"}\n' + "9" * 5000, "line 2 is not JSON (Exceeds the limit"),
        ("a.jsonl", '{"image": "a.jpg"}\n[1]\n', "line 2 is not an object"),
    ],
)
def test_a_faulty_row_is_told_with_its_place(tmp_path, name, content, fault):
    *_, last = open_table(write(tmp_path, name, content)).records
    assert fault in f"{last.place} {last.fault}"


def test_line_ends_of_every_system_are_line_feeds(tmp_path):
    assert read_text(write(tmp_path, "a.txt", b"\xef\xbb\xbfa\r\nb\rc\n")) == "a\nb\nc\n"
